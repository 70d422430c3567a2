"""One pass over a dataset: what identifies each sample, and what a user should know about the data."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlpack.core.dataset import Batch, Dataset

_BATCH = 64
_MAJORITY = 0.9
_FEW = 5
_FEW_FLOATS = 100
# Of samples like those that calibrate, 2 / (n + 1) lie beyond the extremes of n: more than a few times that is a sign.
_OUTSIDE = 0.01
_UNLIKE = 5
_SHOWN = 5
_TABLE = 2
# Wide rows are mostly pixels or counts, some of which are always zero: no news to who made them.
_MOST_COLUMNS = 32
_UNMEASURED = "how the model behaves on other values is not measured"


@dataclass(frozen=True, eq=False)
class Scan:
    """Per sample: a hash of its content, its cluster and label where there are any, and each input's extremes.

    `content` [n] uint64; `clusters` and `labels` [n, …] or None; `low` and `high` [n] by input name. `columns` has the
    extremes [2, columns] over all samples of each input that is a table of floats with few columns.
    """

    content: np.ndarray
    clusters: np.ndarray | None
    labels: np.ndarray | None
    low: dict[str, np.ndarray]
    high: dict[str, np.ndarray]
    columns: dict[str, np.ndarray] = field(default_factory=dict)


def scan(dataset: Dataset) -> Scan:
    """Read the dataset once, in small batches, whatever their order."""
    rows: list[np.ndarray] = []
    contents: list[np.ndarray] = []
    clusters: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    low: dict[str, list[np.ndarray]] = {spec.name: [] for spec in dataset.inputs}
    high: dict[str, list[np.ndarray]] = {spec.name: [] for spec in dataset.inputs}
    columns: dict[str, np.ndarray] = {}
    for batch in dataset.batches(_BATCH):
        rows.append(batch.rows)
        contents.append(content_hashes(batch))
        if batch.cluster is not None:
            clusters.append(batch.cluster)
        if batch.labels is not None:
            labels.append(batch.labels)
        for name, array in batch.inputs.items():
            flat = array.reshape(len(batch), -1)
            if flat.shape[1]:
                low[name].append(flat.min(axis=1).astype(np.float64))
                high[name].append(flat.max(axis=1).astype(np.float64))
            if array.ndim == _TABLE and array.dtype.kind == "f" and array.shape[1] <= _MOST_COLUMNS:
                ends = np.stack([array.min(axis=0), array.max(axis=0)])
                before = columns.setdefault(name, ends)
                columns[name] = np.stack([np.minimum(before[0], ends[0]), np.maximum(before[1], ends[1])])
    order = np.argsort(np.concatenate(rows), kind="stable")
    return Scan(
        content=np.concatenate(contents)[order],
        clusters=np.concatenate(clusters)[order] if clusters else None,
        labels=np.concatenate(labels)[order] if labels else None,
        low={name: np.concatenate(each)[order] for name, each in low.items() if each},
        high={name: np.concatenate(each)[order] for name, each in high.items() if each},
        columns=columns,
    )


def content_hashes(batch: Batch) -> np.ndarray:
    """A 64-bit hash of each sample's inputs, BLAKE2b over their values.

    Not over the dtype, so that the same sample is found again in a file that keeps it as float64; neither the
    label nor the name of an array counts. Samples made from texts or images bring a hash of what they were made of.
    """
    if batch.content is not None:
        return batch.content
    pieces = [
        np.ascontiguousarray(_by_value(array)).reshape(len(batch), -1).view(np.uint8)
        for _, array in sorted(batch.inputs.items())
    ]
    return np.array(
        [
            int.from_bytes(
                hashlib.blake2b(b"".join(piece[row].tobytes() for piece in pieces), digest_size=8).digest(),
                "little",
            )
            for row in range(len(batch))
        ],
        dtype=np.uint64,
    )


def _by_value(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind in "iub":
        return array.astype(np.int64)
    # Adding 0 makes -0.0 and 0.0 one value.
    return array.astype(np.float32) + np.float32(0)


def notes(data: Scan, calibration: Scan, calibrating: np.ndarray) -> tuple[str, ...]:
    """What a user should know about the data before a number rests on it, a line each.

    `calibrating` are the rows of `calibration` that ranges are found on.
    """
    return (
        *_repeated(data.content, data.labels),
        *_balance(data.labels),
        *_constant(data),
        *_outside(data, calibration, calibrating),
    )


def _repeated(content: np.ndarray, labels: np.ndarray | None) -> Iterator[str]:
    """Samples that occur more than once; the same sample with two labels cannot be answered right twice."""
    first, inverse, counts = np.unique(content, return_index=True, return_inverse=True, return_counts=True)[1:]
    more = len(content) - len(counts)
    if not more:
        return
    yield f"{more:,} of {len(content):,} samples repeat another one: they share a side of every split"
    if labels is not None and labels.ndim == 1:
        contradicting = int((labels != labels[first[inverse]]).sum())
        if contradicting:
            yield f"{contradicting:,} samples repeat another one with a different label: no model gets both right"


def _balance(labels: np.ndarray | None) -> Iterator[str]:
    """A class that nearly all samples have, and classes with too few to say anything of them."""
    if labels is None or labels.ndim != 1 or labels.dtype.kind not in "iub":
        return
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) == 1:
        yield f"every sample has the label {classes[0]}: whatever always answers that is never wrong"
        return
    share = counts.max() / counts.sum()
    if share >= _MAJORITY:
        most = classes[counts.argmax()]
        yield f"{share:.0%} of the samples have the label {most}: answering only that scores as much"
    rare = classes[counts < _FEW]
    if 0 < len(rare) < len(classes) and len(classes) <= _FEW_FLOATS:
        shown = ", ".join(map(str, rare[:_SHOWN])) + (", …" if len(rare) > _SHOWN else "")
        yield f"fewer than {_FEW} samples have the label {shown}: what happens to them cannot be measured"


def _constant(data: Scan) -> Iterator[str]:
    for name, low in data.low.items():
        if len(low) > 1 and low.min() == data.high[name].max():
            yield f"input {name!r} is {low[0]:g} everywhere: {_UNMEASURED}"
        elif len(low) > 1 and name in data.columns:
            least, most = data.columns[name]
            # Always 1 is an intercept, or where a mask of sequences begins: meant so.
            same = np.flatnonzero((least == most) & (least != 1))
            if len(same):
                shown = ", ".join(map(str, same[:_SHOWN])) + (", …" if len(same) > _SHOWN else "")
                total = data.columns[name].shape[1]
                yield f"{len(same)} of {total} columns of input {name!r} never change ({shown}): {_UNMEASURED}"


def _outside(data: Scan, calibration: Scan, calibrating: np.ndarray) -> Iterator[str]:
    """Samples with values beyond all that ranges are found on: static int8 cuts them off."""
    for name, low in data.low.items():
        if name not in calibration.low or not len(calibrating):
            continue
        least, most = calibration.low[name][calibrating].min(), calibration.high[name][calibrating].max()
        beyond = float(((low < least) | (data.high[name] > most)).mean())
        if beyond > max(_OUTSIDE, _UNLIKE * 2 / (len(calibrating) + 1)):
            yield (
                f"{beyond:.0%} of the samples have values of input {name!r} outside of [{least:g}, {most:g}]: "
                "int8 ranges are found on less than that"
            )
