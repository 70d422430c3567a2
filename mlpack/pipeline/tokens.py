"""What steps share that read a model's scores of single tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .faults import PipelineError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def scores_of_tokens(
    outputs: Mapping[str, np.ndarray], name: str, encodings: Sequence[Any], dims: tuple[int, ...] = ()
) -> np.ndarray:
    """An output as float64 [n, length, *dims], with at least as many places as each sample has tokens.

    Raises:
        PipelineError: there is no such output, or it is of another shape.
    """
    if name not in outputs:
        raise PipelineError(f"the model gives no {name!r}: it gives {', '.join(outputs)}")
    scores = np.asarray(outputs[name], dtype=np.float64)
    longest = max(len(each.ids) for each in encodings)
    wanted = (len(encodings), longest, *dims)
    if scores.ndim != len(wanted) or scores.shape[0] != wanted[0] or scores.shape[2:] != dims:
        raise PipelineError(f"output {name!r} is {list(scores.shape)}, where {list(wanted)} was expected")
    if scores.shape[1] < longest:
        raise PipelineError(f"output {name!r} is of {scores.shape[1]} tokens, but a sample has {longest}")
    return scores


def softmax(scores: np.ndarray) -> np.ndarray:
    """Probabilities along the last axis."""
    raised = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True))
