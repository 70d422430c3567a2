"""Scores of every token to the tagged words of a text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .faults import PipelineError
from .text import TextPreprocess
from .tokens import scores_of_tokens, softmax

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np

_UNTAGGED = "O"


class TagsPostprocess:
    """The tagged words of each sample, in the order of the text.

    A column `tags`: a list per sample of {"text", "label", "score", "start", "end"}, the last two in characters. The
    first token of a word decides; words labelled "O" are left out, and so is what was cut off. What a word is says
    the tokenizer: BERT's splits at spaces and punctuation. The output has the shape [n, length, labels].
    """

    columns = ("tags",)

    def __init__(self, folder: Path, *, preprocess: Any, output: str, labels: Sequence[str]) -> None:
        del folder
        if not isinstance(preprocess, TextPreprocess) or len(preprocess.fields) != 1:
            raise PipelineError("tags need one text before the model: preprocess of kind text, with one field")
        self._text = preprocess
        self._output = output
        self._labels = [str(each) for each in labels]

    def __call__(self, outputs: Mapping[str, np.ndarray], raw: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        """The tagged words of each sample."""
        encodings = self._text.encode(raw)
        scores = scores_of_tokens(outputs, self._output, encodings, (len(self._labels),))
        texts = raw[self._text.fields[0]]
        return {"tags": [self._tagged(*each) for each in zip(texts, encodings, scores, strict=True)]}

    def _tagged(self, text: str, encoding: Any, scores: np.ndarray) -> list[dict[str, Any]]:
        likely = softmax(scores[: len(encoding.ids)])
        words: dict[int, list[int]] = {}
        for at, word in enumerate(encoding.word_ids):
            if word is not None:
                words.setdefault(word, []).append(at)
        found = []
        for places in words.values():
            first = likely[places[0]]
            label = self._labels[int(first.argmax())]
            start, end = encoding.offsets[places[0]][0], encoding.offsets[places[-1]][1]
            if label != _UNTAGGED:
                score = round(float(first.max()), 6)
                found.append({"text": text[start:end], "label": label, "score": score, "start": start, "end": end})
        return found
