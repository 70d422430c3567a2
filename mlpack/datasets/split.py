"""The seeded three-way split by content: calibration, choosing, confirming; and the overlap check.

Each sample is hashed by the content of its inputs, so that duplicates share a side wherever they lie; so do
the rows of one cluster. Groups are taken in the order of a seeded hash until a quota is filled.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mlpack.core.filesystem import write_atomic
from mlpack.datasets.scan import notes, scan
from mlpack.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlpack.core.dataset import Dataset, Part

SMALLEST = 20
"""Fewest samples that are split."""
_SHARE = 0.2
_QUOTA: dict[Part, int] = {"calibration": 512, "choosing": 1000}
_SHOWN = 5


@dataclass(frozen=True, eq=False)
class Split:
    """Row numbers by part, ascending. With `own_calibration` its rows are those of the calibration data.

    `notes` are what a user should know about the data, `cluster_sizes` how many confirming rows each cluster has;
    both are kept here because all of the data was just read.
    """

    seed: int
    own_calibration: bool
    calibration: np.ndarray
    choosing: np.ndarray
    confirming: np.ndarray
    notes: tuple[str, ...] = ()
    cluster_sizes: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))

    def rows(self, part: Part) -> np.ndarray:
        """The rows of one part, int64, ascending."""
        return {"calibration": self.calibration, "choosing": self.choosing, "confirming": self.confirming}[part]

    def save(self, path: Path) -> None:
        """Write it as `.npz`, at once or not at all.

        Raises:
            MachineError: the disk is full or the place cannot be written.
        """
        buffer = io.BytesIO()
        np.savez(
            buffer,
            seed=np.int64(self.seed),
            own_calibration=np.bool_(self.own_calibration),
            calibration=self.calibration,
            choosing=self.choosing,
            confirming=self.confirming,
            notes=np.array(self.notes, dtype=np.str_),
            cluster_sizes=self.cluster_sizes,
        )
        write_atomic(path, buffer.getvalue())

    @classmethod
    def around(cls, confirming: np.ndarray, size: int, seed: int) -> Split:
        """These rows confirm; all others of so many calibrate and choose."""
        others = np.setdiff1d(np.arange(size, dtype=np.int64), confirming)
        return cls(seed=seed, own_calibration=False, calibration=others, choosing=others, confirming=confirming)

    @classmethod
    def load(cls, path: Path) -> Split:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as stored:
            return cls(
                seed=int(stored["seed"]),
                own_calibration=bool(stored["own_calibration"]),
                calibration=stored["calibration"],
                choosing=stored["choosing"],
                confirming=stored["confirming"],
                notes=tuple(map(str, stored["notes"])) if "notes" in stored else (),
                cluster_sizes=stored["cluster_sizes"] if "cluster_sizes" in stored else np.empty(0, np.int64),
            )


def split(dataset: Dataset, seed: int, calibration: Dataset | None = None) -> Split:
    """Split evaluation data: min(512, 20%) to calibrate, min(1000, 20%) to choose, the rest to confirm.

    With calibration data of its own, all of that calibrates and evaluation data is split in two.

    Raises:
        DataError: too few samples, clusters so large that a part stays empty, or calibration data that is
            among the evaluation data.
    """
    size = len(dataset)
    if size < SMALLEST:
        raise DataError(
            f"the data has {size} samples: too few to split into calibration, choosing and confirming",
            f"give at least {SMALLEST} samples; a limit of 1% needs some thousands to be proven",
        )
    data = scan(dataset)
    own = None if calibration is None else scan(calibration)
    if own is not None:
        _refuse_overlap(data.content, own.content)
    clusters = data.clusters
    order, groups = _ordered_groups(data.content, clusters, seed)
    parts: tuple[Part, ...] = ("choosing",) if calibration is not None else ("calibration", "choosing")
    taken: dict[Part, np.ndarray] = {}
    free = np.ones(len(groups), dtype=bool)
    for part in parts:
        quota = min(_QUOTA[part], int(size * _SHARE))
        taken[part] = _take(groups, order, free, quota)
        if not len(taken[part]):
            raise _too_few_groups(part, quota, clustered=clusters is not None)
    confirming = np.sort(np.concatenate([groups[at] for at in np.flatnonzero(free)] or [np.empty(0, np.int64)]))
    if not len(confirming):
        raise _too_few_groups("confirming", size, clustered=clusters is not None)
    calibrating = taken["calibration"] if own is None else np.arange(len(own.content))
    return Split(
        seed=seed,
        own_calibration=own is not None,
        calibration=calibrating,
        choosing=taken["choosing"],
        confirming=confirming,
        notes=notes(data, own or data, calibrating),
        cluster_sizes=np.empty(0, np.int64) if clusters is None else _sizes(clusters[confirming]),
    )


def _sizes(clusters: np.ndarray) -> np.ndarray:
    return np.unique(clusters, return_counts=True)[1]


def _too_few_groups(part: Part, quota: int, *, clustered: bool) -> DataError:
    if clustered:
        return DataError(
            f"the clusters of the data are so large that none is left for the part for {part} ({quota} rows)",
            "give data of more and smaller clusters, or leave the array 'cluster' out",
        )
    return DataError(
        f"the data repeats so few samples that none is left for the part for {part}", "give more different samples"
    )


def _take(groups: list[np.ndarray], order: np.ndarray, free: np.ndarray, quota: int) -> np.ndarray:
    """Groups from the front that still fit, until the quota is filled; marks them as no longer free."""
    rows: list[np.ndarray] = []
    room = quota
    for at in order:
        if room == 0:
            break
        if free[at] and len(groups[at]) <= room:
            free[at] = False
            rows.append(groups[at])
            room -= len(groups[at])
    return np.sort(np.concatenate([*rows, np.empty(0, np.int64)]))


def _refuse_overlap(evaluation: np.ndarray, calibration: np.ndarray) -> None:
    rows = np.flatnonzero(np.isin(calibration, evaluation))
    if len(rows):
        shown = ", ".join(map(str, rows[:_SHOWN])) + (", ..." if len(rows) > _SHOWN else "")
        raise DataError(
            f"{len(rows)} of {len(calibration)} rows of the calibration data are also in the evaluation data "
            f"(rows {shown})",
            "take them out of one of the two, or leave --calibration out: a part of --data is then set aside",
        )


def _ordered_groups(content: np.ndarray, clusters: np.ndarray | None, seed: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Groups of rows that must share a side, and the seeded order in which they are taken."""
    _, member = np.unique(content, return_inverse=True)
    if clusters is not None:
        member = _joined(member, np.unique(clusters, return_inverse=True)[1])
    by_group = np.argsort(member, kind="stable")
    starts = np.flatnonzero(np.diff(member[by_group], prepend=-1))
    groups = np.split(by_group, starts[1:])
    keys = [_key(seed, int(np.min(content[rows]))) for rows in groups]
    return np.argsort(np.array(keys, dtype=np.uint64), kind="stable"), groups


def _joined(contents: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """Group numbers: rows of equal content and rows of one cluster are together, also by a chain of both.

    Union by path halving over the clusters.
    """
    parent = list(range(int(clusters.max()) + 1))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    first_cluster: dict[int, int] = {}
    for content, cluster in zip(contents.tolist(), clusters.tolist(), strict=True):
        other = first_cluster.setdefault(content, cluster)
        parent[root(cluster)] = root(other)
    roots: Iterator[Any] = (root(cluster) for cluster in clusters.tolist())
    return np.unique(np.fromiter(roots, dtype=np.int64, count=len(clusters)), return_inverse=True)[1]


def _key(seed: int, content: int) -> int:
    text = f"{seed} {content}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
