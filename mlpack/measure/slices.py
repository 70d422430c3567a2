"""Slices: the drop of each group of samples, with intervals that hold for all groups at once; and flipped samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlpack.core.artifact import GroupRecord
from mlpack.errors import DataError
from mlpack.measure.limits import compare

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlpack.measure.limits import Limit
    from mlpack.measure.metrics import Metric

_WRONG_AT_ALL = 0.10


def drops_by_group(
    metric: Metric,
    original: Mapping[str, np.ndarray],
    candidate: Mapping[str, np.ndarray],
    group: np.ndarray,
    cluster: np.ndarray | None,
    limit: Limit | None,
    seed: int,
) -> tuple[GroupRecord, ...]:
    """The paired comparison within each group of `group` [n], the worst first.

    Intervals hold together with 90%: each is taken at 1 - 10%/groups (C. Bonferroni, 1936), so that the worst of
    many groups is no artefact of looking at many. A relative limit is relative to the group's own metric. Where the
    metric is undefined within a group, its drop is None.
    """
    names = np.unique(group)
    confidence = 1 - _WRONG_AT_ALL / len(names)
    found = []
    for name in names:
        mine = group == name
        one, two = ({word: array[mine] for word, array in kept.items()} for kept in (original, candidate))
        clusters = None if cluster is None else cluster[mine]
        try:
            told = compare(metric, one, two, clusters, limit, seed, confidence)
        except DataError:
            found.append(GroupRecord(group=str(name), samples=int(mine.sum()), verdict="none"))
            continue
        found.append(
            GroupRecord(
                group=str(name),
                samples=told.samples,
                baseline=told.baseline,
                optimized=told.optimized,
                drop=told.drop,
                interval=told.drop_ci90,
                verdict=told.verdict,
            )
        )
    return tuple(sorted(found, key=lambda each: -np.inf if each.drop is None else each.drop, reverse=True))


def flips(
    original: np.ndarray, candidate: np.ndarray, rows: np.ndarray, names: np.ndarray | None = None
) -> dict[str, list[int] | list[str]]:
    """The samples that got worse and those that got better, by their rows; scores [n] of both models.

    Where samples are files, `names` [n], also by those: `worse_files` and `better_files`.
    """
    worse, better = original > candidate, candidate > original
    found: dict[str, list[int] | list[str]] = {"worse": rows[worse].tolist(), "better": rows[better].tolist()}
    if names is not None:
        found |= {"worse_files": names[worse].tolist(), "better_files": names[better].tolist()}
    return found
