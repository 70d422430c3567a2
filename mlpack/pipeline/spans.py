"""Scores of where an answer begins and ends to the answer, cut out of the text that was asked about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .faults import PipelineError
from .text import TextPreprocess
from .tokens import scores_of_tokens, softmax

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_FIELDS = 2


class SpansPostprocess:
    """The best answer of each sample: `answer`, `score`, and its `start` and `end` in the context, in characters.

    A sample is a question and a context, the two fields of the preprocess in this order. The score is the
    probability of the first token times that of the last one, each over the context's tokens and the first token
    of the whole input, where models put their doubts. An answer has at most `longest` tokens. Where the question
    left no room for any context the answer is empty, with score 0.
    """

    columns = ("answer", "score", "start", "end")

    def __init__(
        self,
        folder: Path,
        *,
        preprocess: Any,
        start: str = "start_logits",
        end: str = "end_logits",
        longest: int = 30,
    ) -> None:
        del folder
        if not isinstance(preprocess, TextPreprocess) or len(preprocess.fields) != _FIELDS:
            raise PipelineError(
                "spans need a question and a context before the model: preprocess of kind text, with two fields"
            )
        if longest < 1:
            raise PipelineError(f"longest: {longest} leaves no answer")
        self._text = preprocess
        self._outputs = (start, end)
        self._longest = longest

    def __call__(self, outputs: Mapping[str, np.ndarray], raw: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        """The answer of each sample."""
        encodings = self._text.encode(raw)
        starts, ends = (scores_of_tokens(outputs, name, encodings) for name in self._outputs)
        contexts = raw[self._text.fields[1]]
        found = [self._best(*each) for each in zip(contexts, encodings, starts, ends, strict=True)]
        return {name: [each[at] for each in found] for at, name in enumerate(self.columns)}

    def _best(self, context: str, encoding: Any, starts: np.ndarray, ends: np.ndarray) -> tuple[str, float, int, int]:
        places = np.array([at for at, part in enumerate(encoding.sequence_ids) if part == 1], dtype=np.int64)
        if not len(places):
            return "", 0.0, 0, 0
        considered = places if places[0] == 0 else np.concatenate([[0], places])
        begins, stops = (softmax(each[considered])[-len(places) :] for each in (starts, ends))
        pairs = np.triu(np.outer(begins, stops))
        pairs -= np.triu(pairs, self._longest)
        first, last = np.unravel_index(int(pairs.argmax()), pairs.shape)
        start, end = encoding.offsets[places[first]][0], encoding.offsets[places[last]][1]
        return context[start:end], round(float(pairs[first, last]), 6), start, end
