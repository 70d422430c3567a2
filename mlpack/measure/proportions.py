"""The interval for a difference of paired proportions: right or wrong, before and after, same samples."""

from __future__ import annotations

import math
from statistics import NormalDist

# Halvings of [-1, 1] until two neighbouring doubles are left.
_HALVINGS = 60
_TAILS = 0.85


def tango(b: float, c: float, n: float, confidence: float = 0.90) -> tuple[float, float]:
    """Score interval for p(only the original right) - p(only the candidate right), two-sided.

    Args:
        b: samples that the original gets right and the candidate wrong.
        c: samples the other way round.
        n: all samples. Counts may be fractions, so that a study of another size can be asked about.
        confidence: of both sides together; each side alone is wrong in at most half the rest.

    Source: T. Tango, Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design, Statistics in Medicine 17 (1998) 891-908.
    """
    if not (n > 0 and b >= 0 and c >= 0 and b + c <= n * (1 + 1e-12)):
        raise ValueError(f"b={b}, c={c} are not counts among n={n} samples")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    return -_upper(c, b, n, z), _upper(b, c, n, z)


def interval(b: float, c: float, n: float, confidence: float = 0.90) -> tuple[float, float]:
    """Tango's interval, widened so that each side errs in no more than half of 1 - `confidence` of cases.

    A score interval holds its level on average and not everywhere: enumerated, a model exactly at its limit passes
    in up to 6.8% of cases instead of 5%. With tails of 85% of the nominal ones the worst is below 5%
    (docs/decisions/0007). With c = 0 the difference is the plain proportion b / n: there the end is at least that of
    Clopper and Pearson, which for b = 0 is 1 - 0.05^(1/n), the rule of three.

    Source: C. Clopper, E. Pearson, The use of confidence or fiducial limits, Biometrika 26 (1934) 404-413.
    """
    low, high = tango(b, c, n, 1 - _TAILS * (1 - confidence))
    if c == 0:
        high = max(high, upper_rate(b, n, confidence))
    if b == 0:
        low = min(low, -upper_rate(c, n, confidence))
    return low, high


def upper_rate(count: float, n: float, confidence: float = 0.90) -> float:
    """Exact upper bound (Clopper-Pearson) of the rate behind `count` of `n`; end of a two-sided interval."""
    if count >= n:
        return 1.0
    tail = (1 - confidence) / 2
    if count == 0:
        return float(-math.expm1(math.log(tail) / n))
    from scipy.special import betaincinv

    return float(betaincinv(count + 1, n - count, 1 - tail))


def lower_rate(count: float, n: float, confidence: float = 0.90) -> float:
    """Exact lower bound (Clopper-Pearson) of the rate behind `count` of `n`; end of a two-sided interval."""
    return 1.0 - upper_rate(n - count, n, confidence)


def _upper(b: float, c: float, n: float, z: float) -> float:
    """The largest difference that the score test does not reject."""
    low, high = max(-1.0, min(1.0, (b - c) / n)), 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if n * middle - (b - c) < z * _deviation(b, c, n, middle):
            low = middle
        else:
            high = middle
    return high


def _deviation(b: float, c: float, n: float, delta: float) -> float:
    """Standard deviation of b - c where the true difference is `delta`, the rest by maximum likelihood."""
    linear = -b - c + (2 * n - b + c) * delta
    root = math.sqrt(max(0.0, linear * linear + 8 * n * c * delta * (1 - delta)))
    q = (root - linear) / (4 * n)
    return math.sqrt(max(0.0, n * (2 * q + delta * (1 - delta))))
