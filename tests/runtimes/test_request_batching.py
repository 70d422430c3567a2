"""The queue before the model: bounds, batches, fairness and the end."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlpack.runtimes.templates.fastapi.server.batching import Batcher, Draining, QueueFull
from mlpack.runtimes.templates.fastapi.server.description import Limits
from mlpack.runtimes.templates.fastapi.server.sessions import Model, ModelFailed


def limits(max_rows=4, mode="merged", delay_ms=5.0, capacity=100, instances=1):
    return Limits(mode, max_rows, delay_ms, capacity, instances, 1000)


def doubled(inputs):
    return {"y": inputs["x"] * 2}


def column(*values):
    return {"x": np.array(values, np.float32).reshape(-1, 1)}


async def answers(batcher, requests):
    batcher.start()
    found = await asyncio.gather(
        *(batcher.answer(inputs, len(inputs["x"])) for inputs in requests), return_exceptions=True
    )
    await batcher.drain()
    return found


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 2)), min_size=1, max_size=30),
    st.integers(1, 3),
    st.sampled_from(["merged", "apart"]),
)
def test_everybody_gets_their_own_rows_and_no_batch_is_too_large(shapes, instances, mode):
    ran = []
    requests = [{"x": np.full((rows, width), turn, np.float32)} for turn, (rows, width) in enumerate(shapes)]
    batcher = None

    async def go():
        nonlocal batcher
        batcher = Batcher([Model(doubled)] * instances, limits(mode=mode, instances=instances, delay_ms=1), ran.append)
        return await answers(batcher, requests)

    for request, answer in zip(requests, asyncio.run(go()), strict=True):
        assert np.array_equal(answer.outputs["y"], request["x"] * 2)
    assert sum(ran) == sum(rows for rows, _ in shapes)
    assert max(ran) <= 4
    if mode == "apart":
        assert len(ran) == len(shapes)


def test_the_wait_ends_when_the_batch_is_full():
    ran = []

    async def go():
        return await asyncio.wait_for(
            answers(
                Batcher([Model(doubled)], limits(delay_ms=60_000), ran.append), [column(1), column(2, 3), column(4)]
            ),
            5,
        )

    asyncio.run(go())
    assert ran == [4]


def test_the_wait_ends_with_the_delay():
    ran = []

    async def go():
        batcher = Batcher([Model(doubled)], limits(delay_ms=20), ran.append)
        batcher.start()
        loop = asyncio.get_running_loop()
        start = loop.time()
        await batcher.answer(column(1), 1)
        waited = loop.time() - start
        await batcher.drain()
        return waited

    assert 0.015 < asyncio.run(go()) < 2
    assert ran == [1]


def test_the_bound_of_the_queue_is_exact():
    release = threading.Event()

    def slow(inputs):
        release.wait(10)
        return doubled(inputs)

    async def go():
        batcher = Batcher([Model(slow)], limits(max_rows=1, delay_ms=0, capacity=3), lambda _: None)
        batcher.start()
        first = asyncio.create_task(batcher.answer(column(0), 1))
        await asyncio.sleep(0.1)
        assert batcher.depth == 0, "the worker should have taken the first request"
        waiting = [asyncio.create_task(batcher.answer(column(turn), 1)) for turn in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFull):
            await batcher.answer(column(9), 1)
        release.set()
        await first
        found = [(await task).outputs["y"].item() for task in waiting]
        await batcher.drain()
        return found

    assert asyncio.run(go()) == [0.0, 2.0, 4.0]


def test_a_model_does_not_wait_for_the_event_loop_between_two_batches():
    second = threading.Event()
    ran = []

    def counting(inputs):
        ran.append(len(inputs["x"]))
        if len(ran) == 2:
            second.set()
        return doubled(inputs)

    async def go():
        batcher = Batcher([Model(counting)], limits(max_rows=2, delay_ms=60_000), lambda _: None)
        batcher.start()
        waiting = [asyncio.create_task(batcher.answer(column(turn), 1)) for turn in range(4)]
        await asyncio.sleep(0)
        # The loop stands still here, as if it wrote many answers: no turn of it begins the second batch.
        assert second.wait(10)
        found = [(await each).outputs["y"].item() for each in waiting]
        await batcher.drain()
        return found

    assert asyncio.run(go()) == [0.0, 2.0, 4.0, 6.0]
    assert ran == [2, 2]


def test_draining_answers_what_waits_and_refuses_what_comes():
    async def go():
        batcher = Batcher([Model(doubled)], limits(delay_ms=60_000), lambda _: None)
        batcher.start()
        task = asyncio.create_task(batcher.answer(column(1), 1))
        await asyncio.sleep(0.05)
        batcher.refuse()
        with pytest.raises(Draining):
            batcher.check_open()
        # Let in before, prepared since: it is answered too.
        late = await asyncio.wait_for(batcher.answer(column(2), 1), 5)
        await asyncio.wait_for(batcher.drain(), 5)
        with pytest.raises(Draining):
            await batcher.answer(column(3), 1)
        return (await task).outputs["y"].item(), late.outputs["y"].item()

    assert asyncio.run(go()) == (2.0, 4.0)


def test_nobody_waits_for_mates_while_others_wait_that_do_not_fit():
    ran = []

    async def go():
        batcher = Batcher([Model(doubled)], limits(delay_ms=60_000), ran.append)
        batcher.start()
        narrow = [asyncio.create_task(batcher.answer(column(turn), 1)) for turn in range(2)]
        await asyncio.sleep(0.05)
        assert ran == [], "it should wait for mates"
        wide = {"x": np.ones((4, 3), np.float32)}
        found = await asyncio.wait_for(asyncio.gather(*narrow, batcher.answer(wide, 4)), 5)
        await batcher.drain()
        return [each.outputs["y"].shape for each in found]

    assert asyncio.run(go()) == [(1, 1), (1, 1), (4, 3)]
    assert ran == [2, 4]


def test_one_bad_request_does_not_fail_its_mates_nor_the_worker():
    def picky(inputs):
        if (inputs["x"] < 0).any():
            raise ZeroDivisionError("negative")
        return doubled(inputs)

    async def go():
        return await answers(
            Batcher([Model(picky)], limits(max_rows=3, delay_ms=50), lambda _: None),
            [column(1), column(-1), column(2), column(3)],
        )

    good, bad, other, later = asyncio.run(go())
    assert (good.outputs["y"].item(), other.outputs["y"].item(), later.outputs["y"].item()) == (2.0, 4.0, 6.0)
    assert isinstance(bad, ZeroDivisionError)


def test_outputs_that_do_not_have_the_batch_rows_are_an_error():
    async def go():
        return await answers(
            Batcher([Model(lambda inputs: {"y": inputs["x"][:1]})], limits(delay_ms=50), lambda _: None),
            [column(1), column(2)],
        )

    assert all(isinstance(each, RuntimeError) for each in asyncio.run(go()))


def test_a_client_that_went_away_harms_nobody():
    async def go():
        batcher = Batcher([Model(doubled)], limits(delay_ms=30), lambda _: None)
        batcher.start()
        gone = asyncio.create_task(batcher.answer(column(1), 1))
        kept = asyncio.create_task(batcher.answer(column(2), 1))
        await asyncio.sleep(0.01)
        gone.cancel()
        found = (await kept).outputs["y"].item()
        await batcher.drain()
        return found

    assert asyncio.run(go()) == 4.0


def test_who_is_cancelled_leaves_the_queue_and_is_not_computed():
    release = threading.Event()
    ran = []

    def slow(inputs):
        ran.append(inputs["x"].item())
        release.wait(10)
        return doubled(inputs)

    async def go():
        batcher = Batcher([Model(slow)], limits(max_rows=1, delay_ms=0, capacity=2), lambda _: None)
        batcher.start()
        first = asyncio.create_task(batcher.answer(column(0), 1))
        await asyncio.sleep(0.1)
        late = [asyncio.create_task(batcher.answer(column(turn), 1)) for turn in (1, 2)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFull):
            batcher.check_open()
        for each in late:
            each.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        assert batcher.depth == 0
        kept = asyncio.create_task(batcher.answer(column(3), 1))
        await asyncio.sleep(0)
        release.set()
        await asyncio.gather(first, kept)
        await batcher.drain()

    asyncio.run(go())
    assert ran == [0.0, 3.0]


@pytest.mark.parametrize("is_open", [True, False])
def test_the_spare_answers_only_what_the_first_fails_on(is_open):
    def picky(inputs):
        if (inputs["x"] < 0).any():
            raise ModelFailed("negative")
        return doubled(inputs)

    def spare(inputs):
        return {"y": inputs["x"] * 10}

    async def go():
        model = Model(picky if is_open else None, spare)
        batcher = Batcher([model], limits(max_rows=3, delay_ms=50), lambda _: None)
        return await answers(batcher, [column(1), column(-1), column(2)])

    found = [(each.outputs["y"].item(), each.by_spare) for each in asyncio.run(go())]
    if is_open:
        assert found == [(2.0, False), (-10.0, True), (4.0, False)]
    else:
        assert found == [(10.0, True), (-10.0, True), (20.0, True)]


def test_a_bug_is_not_what_a_spare_is_for():
    def broken(inputs):
        raise ZeroDivisionError

    async def go():
        return await answers(Batcher([Model(broken, doubled)], limits(), lambda _: None), [column(1)])

    assert isinstance(asyncio.run(go())[0], ZeroDivisionError)
