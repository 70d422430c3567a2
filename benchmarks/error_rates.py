"""How often a verdict is wrong: false passes at the limit, power, and coverage, for the functions that are shipped.

Right/wrong metrics are enumerated: every outcome with its exact probability. Metrics by bootstrap are simulated.
No model is run and no clock is read, so that this benchmark gives the same numbers on every machine.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import record
import tables
from error_rates_cases import simulated
from scipy.stats import binom

from mlpack.core.threads import usable_threads
from mlpack.measure.limits import Limit, compare, judge
from mlpack.measure.metrics import Metric, metric
from mlpack.measure.proportions import interval

MOST_FALSE_PASS = 0.05
LEAST_POWER = 0.75
LEAST_CAUGHT = 0.99
SAMPLES = (50, 100, 200, 500, 1000, 2000, 5000)
LIMITS = (0.005, 0.01, 0.02, 0.05)
DISCORDANCE = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
CHOSEN_FROM = 10
CHOOSING = 1000
POWER_AT = 2000
# Standard errors that simulated rates may exceed what is allowed by: 40 of them are looked at.
_SURE = 3.0
_TINY = 1e-10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=2000, help="of each simulated case")
    parser.add_argument("--keep-bootstrap", action="store_true", help="those rows of the last run: they take longest")
    given = parser.parse_args()
    kept = record.read("error_rates") or {}
    found = {
        "limits": {"false_pass": MOST_FALSE_PASS, "power": LEAST_POWER, "caught": LEAST_CAUGHT},
        "grid": {"samples": SAMPLES, "limits": LIMITS, "discordance": DISCORDANCE},
        "proportions": [*false_passes(), *powers()],
        "coverage": coverages(),
        "best_of_ten": [best_of(given.repeats * 5, samples) for samples in (1000, 5000)],
        "bootstrap": kept["bootstrap"] if given.keep_bootstrap else _simulated(given.repeats),
        "simulated": simulated(given.repeats),
        "repeats": given.repeats,
    }
    record.write("error_rates", found)
    tables.render_all()
    print(tables.error_rates(record.read("error_rates") or {}))
    return 0 if kept_promises(found) else 1


def kept_promises(found: dict[str, Any]) -> bool:
    """Whether no false passes are more than allowed, as far as so many repeats can tell, and power is what is asked."""
    drawn = [row for part in ("best_of_ten", "bootstrap", "simulated") for row in found[part]]
    exact = [row["false_pass"] for row in found["proportions"] if "false_pass" in row]
    harmless, caught = (
        next(row[key] for row in found["proportions"] if key in row and row["samples"] == POWER_AT)
        for key in ("harmless_passes", "twice_caught")
    )
    return (
        max(exact) <= MOST_FALSE_PASS
        and all(row["false_pass"] <= MOST_FALSE_PASS + _chance_alone(row["repeats"]) for row in drawn)
        and harmless >= LEAST_POWER
        and caught >= LEAST_CAUGHT
    )


def _chance_alone(repeats: int) -> float:
    """By how much so many repeats may show more than is allowed without a reason."""
    return _SURE * math.sqrt(MOST_FALSE_PASS * (1 - MOST_FALSE_PASS) / repeats)


class Passing:
    """For each number of samples that got worse, how few may have got better for a verdict of `pass`."""

    def __init__(self, samples: int, limit: float) -> None:
        self.samples = samples
        self.fewest: list[int] = []
        better = 0
        for worse in range(samples + 1):
            while better <= samples - worse and judge_counts(worse, better, samples, limit) != "pass":
                better += 1
            if better > samples - worse or worse > samples // 2:
                break
            self.fewest.append(better)

    def chance(self, harm: float, gain: float) -> float:
        """The exact probability of `pass` for a model that worsens and improves these shares of answers."""
        worse = np.arange(len(self.fewest))
        weights = binom.pmf(worse, self.samples, harm)
        enough = binom.sf(np.array(self.fewest) - 1, self.samples - worse, gain / (1 - harm))
        return float((weights * enough).sum())


def judge_counts(worse: int, better: int, samples: int, limit: float) -> str:
    """The shipped verdict on these counts."""
    return judge((worse - better) / samples, interval(worse, better, samples), limit)


def false_passes() -> list[dict[str, Any]]:
    """By samples and limit: the worst chance of `pass` over the discordances for a model exactly at the limit."""
    rows = []
    for samples in SAMPLES:
        for limit in LIMITS:
            passing = Passing(samples, limit)
            rates = {each: passing.chance((each + limit) / 2, (each - limit) / 2) for each in (limit, *DISCORDANCE)
                     if each >= limit}  # fmt: skip
            worst = max(rates, key=lambda each: rates[each])
            rows.append({"samples": samples, "limit": limit, "false_pass": rates[worst], "discordance": worst})
    return rows


def powers() -> list[dict[str, Any]]:
    """What a harmless model, and one that drops twice the limit, get at 2% discordance and a limit of 1 point."""
    rows = []
    for samples in (500, 1000, 2000, 5000):
        passing = Passing(samples, 0.01)
        rows.append(
            {
                "samples": samples,
                "limit": 0.01,
                "harmless_passes": passing.chance(0.01, 0.01),
                "twice_caught": _caught(samples, 0.02, 0.0, 0.01),
                "twice_caught_if_some_help": {
                    each: _caught(samples, (each + 0.02) / 2, (each - 0.02) / 2, 0.01) for each in (0.05, 0.1)
                },
            }
        )
    return rows


def _caught(samples: int, harm: float, gain: float, limit: float) -> float:
    """The chance of `fail` or `inconclusive`."""
    return _chance(
        samples,
        harm,
        gain,
        lambda worse, better: judge_counts(worse, better, samples, limit) in {"fail", "inconclusive"},
    )


def _chance(samples: int, harm: float, gain: float, of: Callable[[int, int], bool]) -> float:
    """Of the outcomes, worse and better answers, that `of` holds for; those below 1e-10 are passed over."""
    total = 0.0
    for worse in np.flatnonzero(binom.pmf(np.arange(samples + 1), samples, harm) > _TINY):
        weight = binom.pmf(worse, samples, harm)
        chances = weight * binom.pmf(np.arange(samples - worse + 1), samples - worse, gain / (1 - harm))
        total += sum(float(chances[each]) for each in np.flatnonzero(chances > _TINY) if of(int(worse), int(each)))
    return total


def coverages() -> list[dict[str, Any]]:
    """How often the 90% interval holds the true drop."""
    rows = []
    for samples in (100, 500, 2000):
        for discordance in (0.02, 0.1):
            for drop in (0.0, 0.01):
                harm, gain = (discordance + drop) / 2, (discordance - drop) / 2
                rows.append(
                    {"samples": samples, "discordance": discordance, "drop": drop,
                     "covered": _covered(samples, harm, gain)}
                )  # fmt: skip
    return rows


def _covered(samples: int, harm: float, gain: float) -> float:
    def holds(worse: int, better: int) -> bool:
        low, high = interval(worse, better, samples)
        return low <= harm - gain <= high

    return _chance(samples, harm, gain, holds)


def best_of(repeats: int, samples: int) -> dict[str, Any]:
    """False passes where ten candidates, each exactly at the limit, are chosen from on other rows, then confirmed."""
    limit, discordance = 0.01, 0.03
    shares = [(discordance + limit) / 2, (discordance - limit) / 2, 1 - discordance]
    rng = np.random.default_rng(0)
    passed = 0
    for _ in range(repeats):
        choosing = rng.multinomial(CHOOSING, shares, size=CHOSEN_FROM)
        chosen = int((choosing[:, 0] - choosing[:, 1]).argmin())
        confirming = rng.multinomial(samples, shares, size=CHOSEN_FROM)[chosen]
        passed += judge_counts(int(confirming[0]), int(confirming[1]), samples, limit) == "pass"
    return {"samples": samples, "candidates": CHOSEN_FROM, "false_pass": passed / repeats, "repeats": repeats}


def _simulated(repeats: int) -> list[dict[str, Any]]:
    cases = _cases(repeats)
    # The longest first, so that no process is left alone with one at the end.
    order = sorted(range(len(cases)), key=lambda at: (cases[at].of == "mse", -cases[at].samples))
    with ProcessPoolExecutor(usable_threads()) as pool:
        waiting = {at: pool.submit(bootstrap, cases[at]) for at in order}
        return [waiting[at].result() for at in range(len(cases))]


Kept = dict[str, np.ndarray]
Draw = Callable[[np.random.Generator, int, float], tuple[Kept, Kept]]


@dataclass(frozen=True)
class Case:
    """A metric, and what draws so many samples of a model that is worse by `drop`, in the metric's unit."""

    name: str
    of: str
    draw: Draw
    samples: int
    drop: float
    repeats: int


def _cases(repeats: int) -> list[Case]:
    drawn: tuple[tuple[str, str, Draw, float], ...] = (
        ("mse, normal differences", "mse", _normal, 0.05),
        ("mse, heavy tails (log-normal)", "mse", _heavy, 0.05),
        ("f1", "f1", _classes, 0.02),
    )
    found = [Case(name, of, draw, samples, drop, repeats)
             for name, of, draw, drop in drawn for samples in (50, 200, 1000)]  # fmt: skip
    # Ranks of 2,000 resamples take a third of a second: a quarter of the repeats.
    ranked = [Case("spearman", "spearman", _ranks, samples, 0.02, repeats // 4) for samples in (50, 200, 500)]
    losses = [Case("perplexity", "perplexity", _losses, samples, 0.15, repeats * 2) for samples in (50, 200, 500)]
    return [*found, *ranked, *losses]


def _ranks(rng: np.random.Generator, samples: int, drop: float) -> tuple[Kept, Kept]:
    """Normal scores whose Spearman correlation with the labels is 0.8, and less by the drop.

    Source of their relation to Pearson's: K. Pearson, On further methods of determining correlation (1907).
    """
    one, two = (2 * math.sin(math.pi / 6 * each) for each in (0.8, 0.8 - drop))
    label = rng.normal(size=samples)
    first = one * label + math.sqrt(1 - one**2) * rng.normal(size=samples)
    second = first + math.sqrt((one / two) ** 2 - 1) * rng.normal(size=samples)
    return {"predicted": first, "label": label}, {"predicted": second, "label": label}


def _losses(rng: np.random.Generator, samples: int, drop: float) -> tuple[Kept, Kept]:
    """Texts of 20 to 60 tokens with a mean loss of 2 per token, and more by what the drop of the perplexity takes."""
    tokens = rng.integers(20, 61, samples)
    loss = tokens * rng.normal(2.0, 0.4, samples)
    more = math.log(math.exp(2.0) + drop) - 2.0
    return (
        {"nll": loss, "tokens": tokens},
        {"nll": loss + tokens * rng.normal(more, 0.05, samples), "tokens": tokens},
    )


def _normal(rng: np.random.Generator, samples: int, drop: float) -> tuple[Kept, Kept]:
    score = rng.gamma(4.0, 0.25, samples)
    return {"score": score}, {"score": score + rng.normal(drop, 0.1, samples)}


def _heavy(rng: np.random.Generator, samples: int, drop: float) -> tuple[Kept, Kept]:
    score = rng.gamma(4.0, 0.25, samples)
    return {"score": score}, {"score": score + drop * rng.lognormal(-0.5, 1.0, samples)}


def _classes(rng: np.random.Generator, samples: int, drop: float) -> tuple[Kept, Kept]:
    """Two equally frequent classes whose answers are wrong at random: macro F1 is then the share that is right."""
    label = rng.integers(0, 2, samples)
    first = np.where(rng.random(samples) < 0.1, 1 - label, label)
    right = first == label
    flip = np.where(right, rng.random(samples) < (drop + 0.01) / 0.9, rng.random(samples) < 0.1)
    return {"predicted": first, "label": label}, {"predicted": np.where(flip, 1 - first, first), "label": label}


def bootstrap(case: Case) -> dict[str, Any]:
    """False passes of a model exactly at the limit, and how often the interval holds the true drop."""
    judged: Metric = metric(case.of, labels=True, output=None)
    limit = Limit(case.drop * (100 if judged.percent else 1), "pt", "")
    rng = np.random.default_rng(case.samples)
    passed = covered = 0
    for repeat in range(case.repeats):
        one, two = case.draw(rng, case.samples, case.drop)
        found = compare(judged, one, two, None, limit, seed=repeat)
        passed += found.verdict == "pass"
        covered += found.drop_ci90[0] <= case.drop <= found.drop_ci90[1]
    return {
        "case": case.name,
        "samples": case.samples,
        "false_pass": passed / case.repeats,
        "covered": covered / case.repeats,
        "repeats": case.repeats,
    }


if __name__ == "__main__":
    sys.exit(main())
