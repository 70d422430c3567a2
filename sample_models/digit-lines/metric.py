"""Is a line read right, every digit of it? For `--metric metric.py:lines_right`."""

import numpy as np
from numpy.typing import NDArray

PADDING = -1


def lines_right(outputs: dict[str, NDArray[np.float32]], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """True for each sample whose digits are exactly those of the label: [n].

    `outputs` has one array of logits [n, steps, classes]; `labels` [n, longest] is filled up with -1.
    """
    (logits,) = outputs.values()
    read = decoded(logits)
    wanted = np.full_like(read, PADDING)
    wanted[:, : labels.shape[1]] = labels
    right: NDArray[np.bool_] = (read == wanted).all(axis=1)
    return right


def decoded(logits: NDArray[np.float32]) -> NDArray[np.int64]:
    """Greedy CTC: the best class of each step, repeats once, blanks (the last class) left out.

    Gives [n, steps], filled up with -1.
    """
    best = logits.argmax(axis=2)
    begins = best != logits.shape[2] - 1
    begins[:, 1:] &= best[:, 1:] != best[:, :-1]
    row, step = np.nonzero(begins)
    digits = np.full_like(best, PADDING)
    digits[row, begins.cumsum(axis=1)[row, step] - 1] = best[row, step]
    return digits
