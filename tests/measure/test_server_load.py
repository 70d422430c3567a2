"""Schedules, the two loops without a network, and what a run of answers says."""

from __future__ import annotations

import asyncio
import gc
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlpack.measure.arrivals import poisson_times
from mlpack.measure.load import PERCENTILES, quantile, shown, summarize
from mlpack.measure.load_drive import Answer, Drive, closed_loop, open_loop, run
from mlpack.measure.percentiles import values_needed
from mlpack.measure.server_time import NETWORK, PARTS, Spent, split

# Real clocks on a machine that may stall for seconds: what is claimed has to hold in one of four tries.
pytestmark = pytest.mark.flaky(reruns=3, reruns_delay=5)

quick = settings(max_examples=60)


@quick
@given(st.floats(0.5, 2000), st.floats(0.1, 20), st.integers(0, 2**32 - 1))
def test_a_schedule_is_ascending_inside_the_run_at_its_rate_and_of_its_seed(rate, seconds, seed):
    times = poisson_times(rate, seconds, seed)
    assert (np.diff(times) >= 0).all()
    assert ((times >= 0) & (times < seconds)).all()
    assert len(times) == round(rate * seconds)
    assert np.array_equal(times, poisson_times(rate, seconds, seed))


@quick
@given(st.floats(1, 100), st.integers(0, 99))
def test_the_gaps_of_a_schedule_are_exponential(rate, seed):
    gaps = np.diff(poisson_times(rate, 4000 / rate, seed))
    assert gaps.mean() == pytest.approx(1 / rate, rel=0.02)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.15)
    assert np.mean(gaps > 1 / rate) == pytest.approx(np.exp(-1), abs=0.04)


def answers_of(latencies, seconds=10.0):
    due = np.linspace(0, seconds, len(latencies), endpoint=False)
    return tuple(Answer(at, at, at + late) for at, late in zip(due.tolist(), latencies, strict=True))


@quick
@given(st.lists(st.floats(1e-4, 5), min_size=1, max_size=500))
def test_percentiles_lie_in_their_intervals_and_are_ordered(latencies):
    load = summarize(Drive(0.0, 10.0, answers_of(latencies)), "closed", 1)
    shown = [each for each in load.percentiles if each.ms is not None]
    for each in shown:
        assert each.ci95[0] <= each.ms <= each.ci95[1]
        assert min(latencies) * 1e3 <= each.ms * (1 + 1e-6)
        assert each.ms <= max(latencies) * 1e3 * (1 + 1e-6)
    assert [each.ms for each in shown] == sorted(each.ms for each in shown)
    for name, q in PERCENTILES.items():
        assert (load.quantile(name).ms is None) == (len(latencies) < values_needed(q))
        assert (load.quantile(name).reason is None) == (load.quantile(name).ms is not None)
    assert load.requests == load.good == len(latencies)
    assert load.throughput <= load.good / 10
    if load.p50_blocks_ci95:
        assert load.blocks >= 5
        assert load.p50_blocks_ci95[0] <= load.p50_blocks_ci95[1]


@quick
@given(st.integers(0, 400), st.integers(0, 400))
def test_requests_without_an_answer_never_make_a_percentile_smaller(answered, endless):
    latencies = np.arange(1.0, answered + 1)
    for name in PERCENTILES:
        shown = quantile(name, latencies, endless)
        if shown.ms is not None:
            assert shown.ci95[1] <= latencies.max()
            without = quantile(name, latencies, 0)
            assert without.ms is None or without.ms <= shown.ms
        else:
            assert shown.reason


def test_what_is_loaded_is_left_out_of_collections_while_a_load_runs():
    async def left_out():
        return gc.get_freeze_count()

    assert run(left_out) > 0
    assert gc.get_freeze_count() == 0


def test_timeouts_take_the_tail_away_and_refusals_are_counted_apart():
    good = answers_of([0.01] * 900)
    late = tuple(Answer(0.0, 0.0, 30.0, "no answer within 30 s", late=True) for _ in range(100))
    refused = tuple(Answer(0.0, 0.0, 0.001, "HTTP 503: the queue is full") for _ in range(300))
    load = summarize(Drive(0.0, 10.0, good + late + refused, unsent=5), "open", 130)
    assert load.errors == {"HTTP 503: the queue is full": 300, "no answer within 30 s": 100}
    assert (load.requests, load.good, load.unsent) == (1305, 900, 5)
    assert load.quantile("p50").ms == pytest.approx(10)
    assert load.quantile("p99").ms is None
    assert "105 of 1005 requests had no answer in time" in load.quantile("p99").reason
    assert any("300 of 1305 requests failed" in note for note in load.notes)
    assert any("5 requests were due and not sent" in note for note in load.notes)


def test_errors_that_all_differ_fill_no_table():
    answers = tuple(Answer(0.0, 0.0, 0.1, f"request {turn} failed") for turn in range(100))
    load = summarize(Drive(0.0, 10.0, (*answers, *answers[:1])), "closed", 1)
    assert next(iter(load.errors.items())) == ("request 0 failed", 2)
    assert (len(load.errors), sum(load.errors.values())) == (21, 101)


@pytest.mark.parametrize(
    ("value", "text"), [(12345.6, "12,346"), (123.4, "123"), (12.34, "12.3"), (0.001234, "0.00123")]
)
def test_numbers_are_shown_without_powers_of_ten(value, text):
    assert shown(value) == text


def test_nothing_answered_is_no_crash():
    load = summarize(Drive(0.0, 1.0, (Answer(0.0, 0.0, 1.0, "refused"),)), "open", 5)
    assert (load.good, load.throughput, load.quantile("p50").ms) == (0, 0, None)
    assert summarize(Drive(0.0, 1.0, ()), "closed", 1).requests == 0


def test_a_server_that_falls_behind_is_told():
    load = summarize(Drive(0.0, 10.0, answers_of(np.linspace(0.01, 5, 1000).tolist())), "open", 100)
    assert any("does not keep up" in note for note in load.notes)


def test_a_run_with_slow_moments_says_that_its_requests_are_not_independent():
    latencies = np.random.default_rng(0).normal(10, 0.1, 2000) + 2 * np.sin(np.linspace(0, 9, 2000))
    load = summarize(Drive(0.0, 10.0, answers_of((latencies / 1e3).tolist())), "closed", 1)
    low, high = load.p50_blocks_ci95
    assert high - low > 1
    assert any("resemble each other" in note for note in load.notes)


@quick
@given(
    st.dictionaries(st.sampled_from(PARTS), st.floats(0, 3), min_size=4, max_size=4),
    st.integers(1, 1000),
    st.floats(1e-3, 10),
)
def test_shares_sum_to_one_or_there_is_a_reason(seconds, requests, mean_s):
    before = Spent("x", 7, dict.fromkeys(PARTS, 1.0))
    after = Spent("x", 7 + requests, {name: 1.0 + each for name, each in seconds.items()})
    found = split(before, after, requests, mean_s)
    if found.parts:
        assert [each.name for each in found.parts] == [NETWORK, *PARTS]
        assert sum(each.share for each in found.parts) == pytest.approx(1)
        assert all(each.share >= -1e-9 for each in found.parts)
        assert sum(each.mean_ms for each in found.parts) == pytest.approx(mean_s * 1e3)
    else:
        assert found.reason


def test_a_server_that_started_anew_or_has_other_clients_is_told():
    none, more = Spent("x", 50, dict.fromkeys(PARTS, 1.0)), Spent("x", 60, dict.fromkeys(PARTS, 0.5))
    assert "started anew" in split(none, more, 10, 1.0).reason
    assert "no statistics" in split(None, None, 10, 1.0).reason
    crowd = Spent("x", 1050, dict.fromkeys(PARTS, 1.1))
    assert "1000 requests, 100 of them ours" in split(none, crowd, 100, 1.0).note


class Stalling:
    """Answers in `usual_s`, but nothing between `stall[0]` and `stall[1]` seconds after the start."""

    def __init__(self, usual_s, stall):
        self.start = time.perf_counter()
        self.usual_s = usual_s
        self.stall = stall
        self.most = self.under_way = 0

    async def __call__(self, due=None):
        sent = time.perf_counter()
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await asyncio.sleep(self.usual_s)
        if self.stall[0] < time.perf_counter() - self.start < self.stall[1]:
            await asyncio.sleep(self.start + self.stall[1] - time.perf_counter())
        self.under_way -= 1
        return Answer(sent if due is None else due, sent, time.perf_counter())


def test_an_open_loop_never_waits_for_an_earlier_answer():
    async def main():
        ask = Stalling(0.0, (0.0, 0.6))
        drive = await open_loop(ask, np.linspace(0, 0.5, 50), 0.5, 0.0)
        return ask, drive

    ask, drive = run(main)
    assert ask.most == len(drive.answers) == 50
    assert drive.waited == drive.unsent == 0


def test_the_bound_on_connections_holds_and_is_told_and_the_wait_is_in_the_latency():
    async def main():
        ask = Stalling(0.0, (0.0, 0.4))
        return ask, await open_loop(ask, np.linspace(0, 0.3, 30), 1.0, 0.0, most=4)

    ask, drive = run(main)
    assert ask.most == 4
    assert drive.waited >= 20
    assert len(drive.answers) + drive.unsent == 30
    assert sum(each.done - each.due > 0.05 for each in drive.answers) >= 15
    assert any("found all connections busy" in note for note in summarize(drive, "open", 100).notes)


def test_what_could_not_be_sent_before_the_end_is_counted_as_slower_than_all():
    async def main():
        return await open_loop(Stalling(0.3, (0.0, 0.0)), np.linspace(0, 0.2, 40), 0.2, 0.0, most=1)

    drive = run(main)
    assert drive.unsent >= 30
    assert len(drive.answers) + drive.unsent == 40
    assert summarize(drive, "open", 200).quantile("p50").ms is None


def test_the_warm_up_is_not_counted_in_either_loop():
    async def main():
        ask = Stalling(0.005, (0.0, 0.0))
        return (
            await open_loop(ask, np.linspace(0, 0.59, 60), 0.4, 0.2),
            await closed_loop(ask, 3, 0.2, 0.2),
        )

    opened, closed = run(main)
    assert len(opened.answers) == 40
    assert min(each.due for each in opened.answers) >= opened.start
    assert min(each.sent for each in closed.answers) >= closed.start


def test_a_closed_loop_has_as_many_requests_under_way_as_clients():
    async def main():
        ask = Stalling(0.01, (0.0, 0.0))
        await closed_loop(ask, 5, 0.3, 0.0)
        return ask.most

    assert run(main) == 5
