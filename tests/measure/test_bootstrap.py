"""The paired bootstrap: what it covers, what it never does, and how often it passes a model at its limit."""

from __future__ import annotations

import numpy as np
import pytest

from mlpack.errors import DataError
from mlpack.measure.bootstrap import paired_drop
from mlpack.measure.metrics import metric

MSE = metric("mse", labels=True, output=None)
F1 = metric("f1", labels=True, output=None)
SPEARMAN = metric("spearman", labels=True, output=None)


def mse(original, candidate, cluster=None, seed=0, resamples=2000):
    return paired_drop(MSE, {"score": original}, {"score": candidate}, cluster, seed, resamples=resamples)


def test_a_mean_is_close_to_students_interval():
    rng = np.random.default_rng(0)
    original = rng.exponential(1, 3000)
    gap = rng.normal(0.05, 0.2, 3000)
    got = mse(original, original + gap)
    reach = 1.645 * gap.std(ddof=1) / np.sqrt(3000)
    assert got.value == pytest.approx(gap.mean())
    assert (got.low, got.high) == pytest.approx((gap.mean() - reach, gap.mean() + reach), abs=0.1 * reach)
    assert got.discordant == 3000


def test_same_seed_same_interval():
    rng = np.random.default_rng(0)
    original, candidate = rng.random(200), rng.random(200)
    assert mse(original, candidate, seed=3) == mse(original, candidate, seed=3)
    assert mse(original, candidate, seed=3) != mse(original, candidate, seed=4)


def test_equal_models_have_no_degenerate_interval():
    score = np.random.default_rng(0).random(300)
    got = mse(score, score)
    assert got.value == 0
    assert got.discordant == 0
    assert got.high == pytest.approx((1 - 0.05 ** (1 / 300)) * score.max())
    assert got.low == -got.high


def test_few_differing_samples_reach_at_least_as_far_as_the_exact_bound():
    score = np.full(1000, 0.5)
    candidate = score.copy()
    candidate[:3] += 0.001
    assert mse(score, candidate).high >= 0.5 * 3 / 1000
    candidate[:3] += 100
    assert mse(score, candidate).high > 0.3 + 0.1


def test_a_constant_difference_is_widened():
    score = np.linspace(1, 2, 400)
    got = mse(score, score + 0.25)
    assert got.low < 0.25 < got.high


def test_one_sample_proves_nothing():
    got = mse(np.array([1.0]), np.array([1.0]))
    assert got.high >= 0.9


def test_clusters_count_instead_of_samples():
    rng = np.random.default_rng(2)
    harm = rng.normal(0.1, 0.3, 60)
    cluster = np.repeat(np.arange(60), 25)
    original = rng.exponential(1, 1500)
    candidate = original + harm[cluster] + rng.normal(0, 0.01, 1500)
    alone, together = mse(original, candidate), mse(original, candidate, cluster)
    assert together.value == pytest.approx(alone.value)
    assert (together.high - together.low) > 3 * (alone.high - alone.low)
    shuffled = rng.permutation(1500)
    again = mse(original[shuffled], candidate[shuffled], cluster[shuffled])
    assert again.high == pytest.approx(together.high, rel=0.05)


@pytest.mark.parametrize("which", ["f1", "spearman"])
def test_set_metrics(which):
    rng = np.random.default_rng(3)
    if which == "f1":
        label = rng.integers(0, 4, 600)
        original = {"predicted": np.where(rng.random(600) < 0.9, label, 0), "label": label}
        worse = np.where(rng.random(600) < 0.1, (label + 1) % 4, original["predicted"])
        candidate = {"predicted": worse, "label": label}
        used = F1
    else:
        label = rng.normal(size=600)
        original = {"predicted": label + rng.normal(0, 0.3, 600), "label": label}
        candidate = {"predicted": original["predicted"] + rng.normal(0, 0.4, 600), "label": label}
        used = SPEARMAN
    got = paired_drop(used, original, candidate, None, 0, resamples=400)
    assert got.value == pytest.approx(used.reduce(original) - used.reduce(candidate))
    assert 0 < got.low < got.value < got.high < 0.2
    flipped = paired_drop(used, candidate, original, None, 0, resamples=400)
    assert flipped.value == pytest.approx(-got.value)
    clustered = paired_drop(used, original, candidate, np.arange(600) // 2, 0, resamples=400)
    assert clustered.low < got.value < clustered.high


def test_equal_set_metrics_are_widened_too():
    rows = {"predicted": np.tile([0, 1], 50), "label": np.tile([0, 1], 50)}
    got = paired_drop(F1, rows, rows, None, 0, resamples=50)
    assert got.high == pytest.approx(1 - 0.05 ** (1 / 100))


def test_undefined_resamples_are_refused():
    label = np.zeros(12)
    label[0] = 1.0  # a third of the resamples have only equal labels
    rows = {"predicted": np.arange(12.0), "label": label}
    with pytest.raises(DataError, match="undefined"):
        paired_drop(SPEARMAN, rows, rows, None, 0, resamples=200)


@pytest.mark.parametrize(
    ("shape", "n", "allowed"),
    [("normal", 40, 0.085), ("normal", 200, 0.085), ("skewed", 200, 0.10), ("rare", 200, 0.03)],
)
def test_a_model_at_the_limit_rarely_passes(shape, n, allowed):
    # 400 repeats: 5% is measured as 5 +- 1.1 percent; three of those are allowed, skewed harm costs more.
    rng = np.random.default_rng(11)
    passed = 0
    for seed in range(400):
        original = rng.exponential(1, n)
        if shape == "normal":
            harm, true = rng.normal(0.1, 0.3, n), 0.1
        elif shape == "skewed":
            harm, true = rng.exponential(1, n) ** 2 * 0.1, 0.2
        else:
            harm, true = (rng.random(n) < 0.05).astype(float), 0.05
        passed += mse(original, original + harm, seed=seed, resamples=500).high <= true
    assert passed / 400 <= allowed


def test_uneven_clusters_reach_further_than_their_own_resamples(monkeypatch):
    """Of equal ones nothing changes; the largest of uneven ones decide, and a draw has few of them."""
    rng = np.random.default_rng(4)
    uneven = np.repeat(np.arange(80), np.maximum(1, rng.lognormal(1.5, 1.0, 80)).astype(int))
    even = np.repeat(np.arange(80), 8)

    def reach(cluster):
        original = rng.gamma(4.0, 0.25, len(cluster))
        harm = np.random.default_rng(1).normal(0.05, 0.2, 80)[cluster]
        found = mse(original, original + harm, cluster)
        return found.high - found.value

    lengthened = {"even": reach(even), "uneven": reach(uneven)}
    monkeypatch.setattr("mlpack.measure.bootstrap._PER_UNEVENNESS", 0.0)
    assert lengthened["even"] == pytest.approx(reach(even), rel=0.05)
    assert lengthened["uneven"] > 1.15 * reach(uneven)
