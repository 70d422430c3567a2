"""Texts to token ids, with the tokenizer that the model was trained with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .faults import PipelineError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_MULTIPLE = 8
SOURCES = ("ids", "attention_mask", "type_ids")


class TextPreprocess:
    """Texts, alone or in pairs, to int64 [n, length] arrays.

    A batch is as long as its longest text, rounded up to a multiple of 8, so that there are few different lengths;
    with `length` all are of that length. What is longer than `max_length` is cut.
    """

    media = "text"

    def __init__(
        self,
        folder: Path,
        *,
        tokenizer: str,
        inputs: Mapping[str, str],
        fields: Sequence[str] = ("text",),
        max_length: int | None = None,
        length: int | None = None,
        pad_id: int = 0,
        pad_type_id: int = 0,
        dtype: str = "int64",
    ) -> None:
        from tokenizers import Tokenizer

        try:
            self._tokenizer = Tokenizer.from_file(str(folder / tokenizer))
        except Exception as error:  # the library raises nothing narrower
            raise PipelineError(f"{folder / tokenizer} is no tokenizer: {error}") from error
        unknown = [name for name in inputs.values() if name not in SOURCES]
        if unknown:
            raise PipelineError(f"a tokenizer gives {', '.join(SOURCES)}, not {unknown[0]!r}")
        self.fields = tuple(fields)
        self.max_length = length or max_length
        self._length = length
        self._from = dict(inputs)
        self._dtype = np.dtype(dtype)
        self._fill = {"ids": pad_id, "type_ids": pad_type_id}
        dim: int | str = length or "length"
        self.inputs = tuple((name, self._dtype.name, ("batch", dim)) for name in inputs)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    def __call__(self, raw: Mapping[str, Sequence[Any]]) -> dict[str, np.ndarray]:
        """Token ids, mask and types, as far as the model takes them."""
        encodings = self.encode(raw)
        # A text can be without any token (control characters alone); no model takes arrays of no length.
        longest = max(1, *(len(each.ids) for each in encodings))
        width = self._length or self._rounded(longest)
        made = {}
        for name, source in self._from.items():
            array = np.full((len(encodings), width), self._fill.get(source, 0), dtype=self._dtype)
            for row, each in enumerate(encodings):
                values = getattr(each, source)
                array[row, : len(values)] = values
            made[name] = array
        return made

    def encode(self, raw: Mapping[str, Sequence[Any]]) -> list[Any]:
        """The tokenizer's own answer for each sample, cut to what the model takes: ids, offsets, word numbers."""
        if self.max_length:
            self._tokenizer.enable_truncation(self.max_length)
        try:
            return list(self._tokenizer.encode_batch(self._given(raw)))
        finally:
            self._tokenizer.no_truncation()

    def lengths(self, raw: Mapping[str, Sequence[Any]]) -> np.ndarray:
        """Tokens of each sample, special ones included, before anything is cut."""
        found = self._tokenizer.encode_batch_fast(self._given(raw))
        return np.array([len(each.ids) for each in found], dtype=np.int64)

    def _given(self, raw: Mapping[str, Sequence[Any]]) -> list[Any]:
        columns = [raw[name] for name in self.fields]
        for column, name in zip(columns, self.fields, strict=True):
            for row, text in enumerate(column):
                if not isinstance(text, str):
                    raise PipelineError(f"{name!r} is a {type(text).__name__}, not a text", row)
                if not text.strip():
                    raise PipelineError(f"{name!r} is empty", row)
        return list(columns[0]) if len(columns) == 1 else list(zip(*columns, strict=True))

    def _rounded(self, longest: int) -> int:
        rounded = -(-longest // _MULTIPLE) * _MULTIPLE
        return min(rounded, self.max_length) if self.max_length else rounded
