"""The prediction: what a graph is likely to take on a CPU that is not here, at prices learnt where one was."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mlpack.core.efficiency import learnt
from mlpack.core.wording import count
from mlpack.measure.graph_work import COUNTED, RATED
from mlpack.measure.roofline import floors_ms, peak_rate, unit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlpack.core.efficiency import Learnt
    from mlpack.core.target import Target
    from mlpack.measure.graph_cost import GraphCost

# An error counts as its square up to this share of what was measured, and as itself beyond.
_FAR, _ROUNDS = 0.1, 30


class Measured(NamedTuple):
    """One timing to learn from: the amounts of each kind of work, and the seconds that they took together."""

    work: Mapping[str, float]
    seconds: float


def rests_on(
    cost: GraphCost,
    target: Target,
    numerics: str,
    threads: int,
    *,
    backend: str | None = None,
    method: str | None = None,
) -> tuple[list[Learnt], str]:
    """All that was learnt and holds for this graph on that target; or nothing, and the reason why.

    Of one backend, and of one method to get a graph into these numerics, where they are given.
    """
    if target.kind != "cpu":
        return [], "learnt on CPUs, which tells nothing of a GPU"
    found = [each for each in learnt() if each.numerics == numerics]
    if not found:
        return [], "not learnt"
    narrowing = (
        ("backend", backend, "learnt of {}, and this runs on {}"),
        ("method", method, "learnt of graphs that are {}, and this is {}"),
        ("unit", unit(target, numerics) or "what is not known", "learnt with {}, and this target computes it with {}"),
        ("threads", threads, "learnt with {} threads, not with {}"),
    )
    for name, wanted, words in narrowing:
        there = " or ".join(dict.fromkeys(str(getattr(each, name)) for each in found))
        found = [each for each in found if wanted is None or getattr(each, name) == wanted]
        if not found:
            return [], words.format(there, wanted)
    if target.cores is not None and threads > target.cores:
        return [], f"it has {count(target.cores, 'core')}, not {threads}"
    if not cost.work:
        return [], "the graph has shapes that are only known when it runs"
    rated = [kind for kind in cost.work if kind in RATED]
    able = [each for each in found if each.efficiency.keys() >= set(rated)]
    strange = [kind for kind in rated if all(kind not in each.efficiency for each in found)] or rated
    return able, "" if able else f"nothing was learnt of {', '.join(strange)} operators"


def predicted_ms(cost: GraphCost, target: Target, known: Learnt) -> float:
    """Ms of one call at prices that hold for it: likely, never measured, and never below the floor."""
    rate = peak_rate(known.unit, known.numerics, known.threads)
    seconds = seconds_of(cost.work, known.efficiency, known.nanoseconds, rate)
    return max(seconds * 1e3, floors_ms(cost, target, known.threads)[known.numerics])


def learn(rows: Sequence[Measured], rate: float) -> tuple[dict[str, float], dict[str, float]]:
    """Efficiency by kind of operator, as a share of the peak rate, and nanoseconds of everything else.

    No price is negative, no efficiency above 1; errors are relative, and large ones count as themselves, not as their
    squares, so that one model unlike the others does not decide.
    """
    import numpy as np
    from scipy.optimize import nnls

    kinds = [kind for kind in (*RATED, *COUNTED) if any(kind in row.work for row in rows)]
    shares = np.array([[row.work.get(kind, 0.0) / row.seconds for kind in kinds] for row in rows])
    least = np.array([1 / rate if kind in RATED else 0.0 for kind in kinds])
    # Columns of one size: operations are billions, calls are one.
    size = shares.max(axis=0)
    weights = np.ones(len(rows))
    for _ in range(_ROUNDS):
        scaled = shares / size * weights[:, None]
        above, _ = nnls(scaled, (1 - shares @ least) * weights)
        price = least + above / size
        weights = np.sqrt(_FAR / np.maximum(np.abs(shares @ price - 1), _FAR))
    found = dict(zip(kinds, price.tolist(), strict=True))
    return (
        {kind: 1 / (rate * each) for kind, each in found.items() if kind in RATED},
        {kind: each * 1e9 for kind, each in found.items() if kind in COUNTED},
    )


def seconds_of(
    work: Mapping[str, float], efficiency: Mapping[str, float], nanoseconds: Mapping[str, float], rate: float
) -> float:
    """The sum of all prices, for work of which each kind of operator was learnt."""
    operators = sum(amount / (rate * efficiency[kind]) for kind, amount in work.items() if kind in RATED)
    return operators + sum(amount * nanoseconds.get(kind, 0.0) * 1e-9 for kind, amount in work.items())
