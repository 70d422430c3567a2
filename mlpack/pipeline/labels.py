"""Scores to the name of the class that has most of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .faults import PipelineError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


class LabelsPostprocess:
    """The best class of each sample, `label`, and how sure the model is of it, `score`.

    `activation` says how an output [n, classes] becomes probabilities; `none` where it is some already. With
    `sigmoid` the classes do not exclude one another: all from 0.5 on are given, joined by "|".
    """

    columns = ("label", "score")

    def __init__(
        self,
        folder: Path,
        *,
        output: str,
        labels: Sequence[str],
        activation: Literal["softmax", "sigmoid", "none"] = "softmax",
    ) -> None:
        del folder
        self._output = output
        self._labels = [str(each) for each in labels]
        self._activation = activation

    def __call__(self, outputs: Mapping[str, np.ndarray], raw: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        """A label and a score per sample."""
        del raw
        if self._output not in outputs:
            raise PipelineError(f"the model gives no {self._output!r}: it gives {', '.join(outputs)}")
        scores = np.asarray(outputs[self._output], dtype=np.float64)
        if scores.ndim != 2 or scores.shape[1] != len(self._labels):  # noqa: PLR2004 - samples, classes
            raise PipelineError(
                f"output {self._output!r} is {list(scores.shape)}, but there are {len(self._labels)} labels"
            )
        likely = _activated(scores, self._activation)
        best = likely.argmax(axis=1)
        sure = [round(float(row[at]), 6) for row, at in zip(likely, best, strict=True)]
        if self._activation == "sigmoid":
            named = ["|".join(self._labels[at] for at in np.flatnonzero(row >= 0.5)) for row in likely]  # noqa: PLR2004
            return {"label": named, "score": sure}
        return {"label": [self._labels[at] for at in best], "score": sure}


def _activated(scores: np.ndarray, activation: str) -> np.ndarray:
    if activation == "none":
        return scores
    if activation == "sigmoid":
        return np.asarray(1 / (1 + np.exp(-np.clip(scores, -500, 500))))
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))
