"""Limits as people write them, verdicts, and the numbers that go with them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpack.errors import DataError, UsageError
from mlpack.measure import limits
from mlpack.measure.limits import Limit, compare, judge, smallest_limit
from mlpack.measure.metrics import metric

TOP1 = metric("top1", labels=True, output=None)
MSE = metric("mse", labels=True, output=None)
F1 = metric("f1", labels=True, output=None)


def scored(n, wrong):
    score = np.ones(n, dtype=np.uint8)
    score[list(wrong)] = 0
    return {"score": score}


def test_parse():
    assert Limit.parse("1%").absolute(0.8, TOP1) == pytest.approx(0.008)
    assert Limit.parse("0.8pt").absolute(0.5, TOP1) == pytest.approx(0.008)
    assert Limit.parse(" .5 % ").text == ".5%"
    assert Limit.parse("0.8pt").absolute(0.5, MSE) == 0.8
    assert Limit.parse("10%").absolute(-0.4, MSE) == pytest.approx(0.04)
    assert str(limits.DEFAULT_LIMIT) == "1%"
    assert Limit.parse("1%") == limits.DEFAULT_LIMIT


@pytest.mark.parametrize("text", ["1", "0.01", "2."])
def test_a_bare_number_is_refused_with_both_spellings(text):
    with pytest.raises(UsageError) as refused:
        Limit.parse(text)
    assert f"{text}%" in refused.value.hint
    assert f"{text}pt" in refused.value.hint


@pytest.mark.parametrize(
    "text", ["-1%", "nan%", "inf%", "", "%", "1 percent", "1,5%", "1%%", "1e4%", "\u0661%", "9" * 400 + "%"]
)
def test_what_is_no_limit_is_refused(text):
    with pytest.raises(UsageError):
        Limit.parse(text)


@given(st.text(max_size=12))
def test_parse_gives_a_limit_or_a_usage_error(text):
    try:
        limit = Limit.parse(text)
    except UsageError:
        return
    assert limit.amount >= 0
    assert Limit.parse(limit.text) == limit


@pytest.mark.parametrize(
    ("drop", "interval", "verdict"),
    [
        (0.0, (-0.005, 0.01), "pass"),
        (0.0, (-0.005, 0.011), "likely"),
        (0.009, (0.0, 0.02), "likely"),
        (0.0, (-0.02, 0.021), "inconclusive"),
        (0.011, (0.005, 0.015), "inconclusive"),
        (0.02, (0.01, 0.03), "inconclusive"),
        (0.02, (0.0101, 0.03), "fail"),
        (0.0, (0.0, 0.0), "likely"),
    ],
)
def test_verdicts_of_the_contract(drop, interval, verdict):
    assert judge(drop, interval, 0.01) == verdict
    assert judge(drop, interval, None) == "none"


def test_right_or_wrong():
    got = compare(TOP1, scored(2000, range(300)), scored(2000, range(10, 312)), None, Limit.parse("1%"), 0)
    assert (got.errors_baseline, got.errors_optimized, got.samples, got.discordant) == (300, 302, 2000, 22)
    assert got.drop == pytest.approx(0.001)
    assert got.baseline - got.optimized == pytest.approx(got.drop)
    assert got.limit == pytest.approx(0.0085)
    assert got.limit_text == "1%"
    assert got.drop_ci90[0] < got.drop < got.drop_ci90[1]
    assert got.verdict == "pass"
    assert got.samples_to_prove is None
    assert Limit.parse(smallest_limit(got)).absolute(got.baseline, TOP1) == pytest.approx(got.drop_ci90[1], rel=0.02)


def test_few_samples_never_pass_a_small_limit():
    same = scored(100, range(5))
    got = compare(TOP1, same, same, None, Limit.parse("1pt"), 0)
    assert got.verdict == "inconclusive"
    assert got.drop == 0
    assert got.samples_to_prove == 299  # 0.99 ** 299 is the first below 0.05
    passing = scored(299, range(5))
    assert compare(TOP1, passing, passing, None, Limit.parse("1pt"), 0).verdict == "pass"


@given(st.integers(0, 40), st.integers(0, 40), st.sampled_from(["1%", "0.3pt", None]), st.integers(100, 900))
def test_the_smallest_limit_passes_and_little_less_does_not(b, c, text, right):
    n = 1000
    original = scored(n, range(right, n))
    candidate = {"score": original["score"].copy()}
    candidate["score"][:b] = 0
    candidate["score"][right : right + c] = 1
    measured = compare(TOP1, original, candidate, None, Limit.parse(text) if text else None, 0)
    spelled = smallest_limit(measured)
    assert spelled.endswith("pt" if text == "0.3pt" else "%")
    limit = Limit.parse(spelled)
    if measured.drop_ci90[1] > 0:
        assert compare(TOP1, original, candidate, None, limit, 0).verdict == "pass"
        smaller = Limit(limit.amount * 0.89, limit.unit, "")
        assert smaller.absolute(measured.baseline, TOP1) < measured.drop_ci90[1]


def test_smallest_limit_of_a_metric_in_its_own_unit():
    rng = np.random.default_rng(0)
    original = {"score": rng.exponential(3.0, 400)}
    candidate = {"score": original["score"] + rng.normal(0.1, 0.1, 400)}
    measured = compare(MSE, original, candidate, None, Limit.parse("0.05pt"), 0)
    assert measured.verdict == "fail"
    assert measured.errors_baseline is None
    assert smallest_limit(measured) == "0.11pt"
    assert measured.drop == pytest.approx(0.1, abs=0.02)


def test_lower_is_better_turns_the_sign():
    ours, theirs = {"score": np.full(50, 2.0)}, {"score": np.full(50, 1.0)}
    better = compare(MSE, ours, theirs, None, Limit.parse("1%"), 0)
    assert better.drop == -1.0
    assert better.drop_ci90[1] > better.drop


def test_clusters_widen_right_or_wrong():
    cluster = np.repeat(np.arange(100), 20)
    original = scored(2000, [])
    candidate = scored(2000, range(40))  # two whole clusters, not forty independent samples
    alone = compare(TOP1, original, candidate, None, Limit.parse("4%"), 0)
    together = compare(TOP1, original, candidate, cluster, Limit.parse("4%"), 0)
    assert alone.verdict == "pass"
    assert together.verdict != "pass"
    assert together.discordant == 2
    singles = compare(TOP1, original, candidate, np.arange(2000), Limit.parse("4%"), 0)
    assert singles == alone


def test_agreement_counts_as_a_drop_from_one():
    agreement = metric(None, labels=False, output=None)
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(400, 3)).astype(np.float32)
    flipped = logits.copy()
    flipped[:4] = -flipped[:4]
    got = compare(agreement, agreement.keep({"y": logits}, None), agreement.keep({"y": flipped}, None), None,
                  limits.AGREEMENT_LIMIT, 0)  # fmt: skip
    assert (got.baseline, got.optimized, got.drop) == (1.0, 0.99, pytest.approx(0.01))
    assert got.verdict == "pass"
    assert got.errors_optimized == 4


def test_rows_that_do_not_belong_together():
    one = {"predicted": np.array([0, 1]), "label": np.array([0, 1])}
    with pytest.raises(DataError, match="different samples"):
        compare(F1, one, {**one, "label": np.array([1, 1])}, None, None, 0)
    with pytest.raises(DataError, match="belong together"):
        compare(TOP1, scored(3, []), scored(4, []), None, None, 0)
    with pytest.raises(DataError, match="no samples"):
        compare(TOP1, scored(0, []), scored(0, []), None, None, 0)
    with pytest.raises(DataError, match="clusters"):
        compare(TOP1, scored(3, []), scored(3, []), np.arange(2), None, 0)
    spearman = metric("spearman", labels=True, output=None)
    flat = {"predicted": np.arange(5.0), "label": np.ones(5)}
    with pytest.raises(DataError, match="spearman of the original is nan"):
        compare(spearman, flat, flat, None, None, 0)


@pytest.mark.parametrize(
    ("errors", "discordant", "more", "n"),
    [(0.5, 0.1, 0.1, 5000), (0.1, 0.1, 0.1, 1000), (0.3, 0.2, 0.2, 1000), (0.02, 0.01, 0.5, 2000)],
)
def test_a_share_of_errors_that_were_measured_on_the_same_rows(errors, discordant, more, n):
    """At the limit 5% may pass; with the errors taken for known it was 8% of the first."""
    draw, tries = np.random.default_rng(5), 800
    harmed = (discordant + more * errors) / 2
    repaired = discordant - harmed
    limit = Limit.parse(f"{more * 100:g}% errors")
    passed = 0
    for _ in range(tries):
        counts = draw.multinomial(n, [harmed, repaired, errors - repaired, 1 - errors - harmed])
        before, after = (np.repeat(np.array(right, np.uint8), counts) for right in ([1, 0, 0, 1], [0, 1, 0, 1]))
        passed += compare(TOP1, {"score": before}, {"score": after}, None, limit, 0).verdict == "pass"
    assert passed <= (0.05 + 2.5 * np.sqrt(0.05 * 0.95 / tries)) * tries


def test_the_smallest_share_of_errors_that_passes_does_pass():
    before, after = scored(2000, range(400)), scored(2000, range(10, 430))
    got = compare(TOP1, before, after, None, Limit.parse("0% errors"), 0)
    text = smallest_limit(got)
    assert text.endswith("% errors")
    assert compare(TOP1, before, after, None, Limit.parse(text), 0).verdict == "pass"
    less = f"{float(text.split('%')[0]) - 0.1:g}% errors"
    assert compare(TOP1, before, after, None, Limit.parse(less), 0).verdict != "pass"
