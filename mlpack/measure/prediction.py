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


def refusal(cost: GraphCost, target: Target, numerics: str, threads: int) -> str | None:
    """Why nothing is predicted for these numerics; None where it is."""
    if target.kind != "cpu":
        return "learnt on CPUs, which tells nothing of a GPU"
    found = rests_on(target, numerics, threads)
    if found is None:
        return _not_learnt(target, numerics, threads)
    if target.cores is not None and threads > target.cores:
        return f"it has {count(target.cores, 'core')}, not {threads}"
    if not cost.work:
        return "the graph has shapes that are only known when it runs"
    strange = [kind for kind in cost.work if kind in RATED and kind not in found.efficiency]
    return f"nothing was learnt of {', '.join(strange)} operators" if strange else None


def rests_on(target: Target, numerics: str, threads: int) -> Learnt | None:
    """What was learnt with the instruction set that this target would compute them with."""
    wanted = (numerics, unit(target, numerics), threads)
    return next((each for each in learnt() if (each.numerics, each.unit, each.threads) == wanted), None)


def _not_learnt(target: Target, numerics: str, threads: int) -> str:
    there = [each for each in learnt() if each.numerics == numerics]
    fastest = unit(target, numerics)
    same = [each for each in there if each.unit == fastest]
    if not there:
        return "not learnt"
    if not same:
        units = " and ".join(dict.fromkeys(each.unit for each in there))
        return f"learnt with {units}, and this target computes it with {fastest or 'what is not known'}"
    counts = " or ".join(str(each.threads) for each in same)
    return f"learnt with {counts} threads, not with {threads}"


def predicted_ms(cost: GraphCost, target: Target, numerics: str, threads: int) -> float:
    """Ms of one call that nothing refuses to predict: likely, never measured, and never below the floor."""
    known = rests_on(target, numerics, threads)
    assert known is not None
    rate = peak_rate(known.unit, numerics, threads)
    seconds = seconds_of(cost.work, known.efficiency, known.nanoseconds, rate)
    return max(seconds * 1e3, floors_ms(cost, target, threads)[numerics])


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
