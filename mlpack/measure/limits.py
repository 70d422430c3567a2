"""How much worse a model may be, what was measured, and what can be concluded from it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from functools import partial
from statistics import NormalDist
from typing import TYPE_CHECKING, Literal

import numpy as np

from mlpack.core.artifact import Verdict
from mlpack.core.words import Frozen
from mlpack.errors import DataError, UsageError
from mlpack.measure import proportions
from mlpack.measure.bootstrap import paired_drop
from mlpack.measure.power import samples_by_width, samples_to_prove, smallest
from mlpack.measure.scores import agreement_scores

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlpack.measure.metrics import Metric

_LIKELY_REACH = 2.0


@dataclass(frozen=True)
class Limit:
    """The largest drop that is allowed: `1%` of the original's metric, or `0.8pt` absolute points."""

    amount: float
    unit: Literal["%", "pt", "% errors"]
    text: str

    @classmethod
    def parse(cls, text: str) -> Limit:
        """Read `1%`, `0.8pt`, or `10% errors`: so many more errors than the original makes.

        Raises:
            UsageError: anything else; a bare number is refused with both spellings.
        """
        found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(%\s*errors|%|pt)?\s*", text, re.ASCII)
        if found is None:
            raise UsageError(
                f"limit {text!r} is not a number of percent or points, 0 or more",
                "--max-drop 1% (of the original's metric) or --max-drop 0.8pt (absolute points)",
            )
        number, unit = found.groups()
        if unit is None:
            raise UsageError(
                f"limit {text!r} has no unit",
                f"--max-drop {number}% (of the original's metric) or --max-drop {number}pt (absolute points)",
            )
        if not math.isfinite(float(number)):
            raise UsageError(f"limit {text!r} is no limit", "--no-limit turns the limit off")
        if unit.endswith("errors"):
            return cls(float(number), "% errors", f"{number}% errors")
        return cls(float(number), "%" if unit == "%" else "pt", f"{number}{unit}")

    def absolute(self, baseline: float, metric: Metric | Comparison) -> float:
        """The limit in the metric's unit; a point is 0.01 of a percent metric and 1 of any other.

        Raises:
            DataError: errors are counted only where 1 means no errors: top1, f1 and the like.
        """
        if self.unit == "% errors":
            if not metric.percent:
                raise DataError(f"a limit of {self.text} needs a metric with errors, such as top1", "--max-drop 1%")
            return max(0.0, 1 - baseline) * self.amount / 100
        if self.unit == "%":
            return abs(baseline) * self.amount / 100
        return self.amount / 100 if metric.percent else self.amount

    def __str__(self) -> str:
        return self.text


DEFAULT_LIMIT = Limit(1.0, "%", "1%")
AGREEMENT_LIMIT = Limit(5.0, "%", "5%")


class Comparison(Frozen):
    """Two models on the same samples.

    Drop, interval and limit are absolute in the metric's unit, positive = worse. `discordant` counts
    samples (with clusters: clusters) on which the two differ. `samples_to_prove` is given where the verdict
    is likely or inconclusive and some number of such samples would prove the model.
    """

    metric: str
    percent: bool
    baseline: float
    optimized: float
    drop: float
    drop_ci90: tuple[float, float]
    limit: float | None
    limit_text: str | None
    verdict: Verdict
    samples: int
    discordant: int
    errors_baseline: int | None
    errors_optimized: int | None
    samples_to_prove: int | None


def compare(
    metric: Metric,
    original: Mapping[str, np.ndarray],
    candidate: Mapping[str, np.ndarray],
    cluster: np.ndarray | None,
    limit: Limit | None,
    seed: int,
    confidence: float = 0.90,
) -> Comparison:
    """Compare what was kept of two models on the same samples, in the same order.

    Right/wrong metrics get Tango's interval for paired proportions, the rest a bootstrap; where clusters
    have several members the bootstrap is by cluster, and for right/wrong metrics the wider ends of both
    are taken.

    Raises:
        DataError: the rows do not belong together, there are none, or the metric is undefined on them.
    """
    if metric.name == "agreement":
        agree = agreement_scores(original, candidate)
        original, candidate = {"score": np.ones_like(agree)}, {"score": agree}
    samples = _samples(original, candidate, cluster)
    metric = metric.settled(original, candidate)
    baseline, optimized = metric.reduce(original), metric.reduce(candidate)
    for value, whose in ((baseline, "original"), (optimized, "optimized model")):
        if not math.isfinite(value):
            raise DataError(f"metric {metric.name} of the {whose} is {value} on these {samples} samples",
                            "check that the labels vary, or pass another --metric")  # fmt: skip
    ours, theirs = metric.scores(original), metric.scores(candidate)
    clustered = cluster is not None and len(np.unique(cluster)) < samples
    wrong: tuple[int, int] | None = None
    if metric.kind == "proportion" and ours is not None and theirs is not None:
        b, c = int((ours > theirs).sum()), int((theirs > ours).sum())
        wrong = samples - int(ours.sum()), samples - int(theirs.sum())
        drop, discordant = (b - c) / samples, b + c
        low, high = proportions.interval(b, c, samples, confidence)
        if clustered:
            by_cluster = paired_drop(metric, original, candidate, cluster, seed, confidence)
            low, high = min(low, by_cluster.low), max(high, by_cluster.high)
            discordant = by_cluster.discordant
    else:
        measured = paired_drop(metric, original, candidate, cluster if clustered else None, seed, confidence)
        drop, low, high, discordant = measured.value, measured.low, measured.high, measured.discordant
    allowed = None if limit is None else limit.absolute(baseline, metric)
    ends = (low, high)
    if limit is not None and limit.unit == "% errors" and wrong is not None:
        ends = _beside_its_errors(drop, ends, discordant=(b + c) / samples, errors=wrong[0] / samples,
                                  more=limit.amount / 100, samples=samples)  # fmt: skip
    verdict = judge(drop, ends, allowed)
    needed = None
    if allowed is not None and verdict in {"likely", "inconclusive"}:
        if wrong is not None and not clustered:
            needed = samples_to_prove(b, c, samples, allowed)
        else:
            needed = samples_by_width(drop, high, samples, allowed)
    return Comparison(
        metric=metric.name, percent=metric.percent, baseline=baseline, optimized=optimized, drop=drop,
        drop_ci90=(low, high), limit=allowed, limit_text=None if limit is None else limit.text,
        verdict=verdict, samples=samples, discordant=discordant, errors_baseline=wrong[0] if wrong else None,
        errors_optimized=wrong[1] if wrong else None, samples_to_prove=needed,
    )  # fmt: skip


def judge(drop: float, ci90: tuple[float, float], limit: float | None) -> Verdict:
    """The verdict on a measured drop; each end of the 90% interval is a one-sided 95% bound.

    pass: the bad end is inside the limit. likely: measured inside, bad end inside twice the limit. fail:
    the good end is outside. An interval without width proves nothing.
    """
    low, high = ci90
    if limit is None:
        return "none"
    if high <= limit and low < high:
        return "pass"
    if drop <= limit and high <= _LIKELY_REACH * limit:
        return "likely"
    return "fail" if low > limit else "inconclusive"


def _beside_its_errors(
    drop: float, ci90: tuple[float, float], *, discordant: float, errors: float, more: float, samples: int
) -> tuple[float, float]:
    """The interval of a drop that is held against a share of the original's errors, which the same rows measured.

    With the limit `more` × errors for known, a model at its limit passed in 8% of cases (50% errors, 10% of answers
    differ, 5,000 samples). What counts is the mean of drop − `more` × error over the samples: its variance is that of
    the drop and `more`² e (1 − e) + 2 `more` (share repaired + drop × e). Reaches add up in squares.
    """
    repaired = (discordant - drop) / 2
    extra = more**2 * errors * (1 - errors) + 2 * more * (repaired + drop * errors)
    reach = NormalDist().inv_cdf(0.95) ** 2 * max(0.0, extra) / samples
    low, high = ci90
    return drop - math.sqrt((drop - low) ** 2 + reach), drop + math.sqrt((high - drop) ** 2 + reach)


def points(drop: float, comparison: Comparison) -> str:
    """A drop as people read it: in points for percent metrics, else in the metric's unit."""
    return f"{drop * 100:.2f}pt" if comparison.percent else f"{drop:.4g}"


def smallest_limit(comparison: Comparison) -> str:
    """The smallest limit that would pass on the same data, rounded up, in the spelling of the one given."""
    bad_end = max(0.0, comparison.drop_ci90[1])
    text = comparison.limit_text or "%"
    if text.endswith("errors") and comparison.baseline < 1:
        tenths = smallest(partial(_passes_with_more_errors, comparison))
        if tenths is not None:
            return f"{tenths / 10:g}% errors"
    in_points = text.endswith(("pt", "errors")) or comparison.baseline == 0
    if in_points:
        amount, unit = bad_end * (100 if comparison.percent else 1), "pt"
    else:
        amount, unit = bad_end / abs(comparison.baseline) * 100, "%"
    if amount == 0:
        return f"0{unit}"
    # One decimal from 1 on, two significant digits below.
    step = Decimal(1).scaleb(min(-1, math.floor(math.log10(amount)) - 1))
    rounded = Decimal(amount).quantize(step, rounding=ROUND_CEILING)
    while Limit.parse(f"{rounded:f}{unit}").absolute(comparison.baseline, comparison) < bad_end:
        rounded += step
    return f"{rounded:f}{unit}"


def _passes_with_more_errors(comparison: Comparison, tenths: int) -> bool:
    """Whether so many tenths of a percent more errors would be allowed."""
    errors, more = 1 - comparison.baseline, tenths / 1000
    _, high = _beside_its_errors(
        comparison.drop, comparison.drop_ci90, discordant=comparison.discordant / comparison.samples, errors=errors,
        more=more, samples=comparison.samples,
    )  # fmt: skip
    return high <= more * errors


def _samples(
    original: Mapping[str, np.ndarray], candidate: Mapping[str, np.ndarray], cluster: np.ndarray | None
) -> int:
    """How many samples both sides have; refuses rows that do not belong together."""
    hint = "evaluate both models on the same data with the same metric"
    shapes = [{name: array.shape for name, array in kept.items()} for kept in (original, candidate)]
    if shapes[0] != shapes[1]:
        raise DataError("what was kept of the two models does not belong together", hint)
    for name in ("label", "labels"):
        if name in original and not np.array_equal(original[name], candidate[name]):
            raise DataError("the two models were scored on different samples: their labels differ", hint)
    samples = len(next(iter(original.values()), ()))
    if samples == 0:
        raise DataError("no samples to compare on", "check that --data holds rows")
    if cluster is not None and len(cluster) != samples:
        raise DataError(f"{len(cluster)} clusters for {samples} samples", "give one cluster per sample")
    return samples
