"""A module learns, is stopped in time, keeps its best weights, and after a kill ends as if nothing had been."""

import math
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from rows_to_learn import CLASSES, WIDTH, Towards, arrays, module, rows, state, trained
from torch import nn

from mlpack.errors import DataError, ModelError, StageFailed
from mlpack.training.loop import FILE
from mlpack.training.sampling import Sampler

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


class Stopped(Exception):
    """What ends a training in the middle."""


def stop_at(steps):
    def after(done):
        if done == steps:
            raise Stopped

    return after


@pytest.fixture
def data(tmp_path):
    return rows(tmp_path)


def test_it_learns_and_says_how_far_it_is(data):
    told = []
    history, towards = trained(module(), data, say=lambda *each: told.append(each))
    first, last = history.rows[0], history.rows[-1]
    assert (first["step"], first["loss"]) == (0, None)
    assert last["held_out_loss"] < first["held_out_loss"] / 2
    assert last["held_out_right"] > 0.9
    assert (history.stopped, history.steps, history.learnt, history.held_out) == ("all epochs", 36, 96, 24)
    assert [row["step"] for row in history.rows] == [0, 6, 12, 18, 24, 30, 36]
    assert towards.steps == 36
    assert told[-1][1:] == (36, 36)
    assert "held-out" in told[-1][0]
    assert "right" in told[-1][0]


def test_what_is_kept_has_the_lowest_held_out_loss(data):
    net = module()
    history, towards = trained(net, data, learning_rate=0.3, warmup=0)
    best = min(history.rows, key=lambda row: row["held_out_loss"])
    assert history.best_step == best["step"]
    assert best["step"] < history.steps, "a rate that is far too high does not end at its best"
    assert not net.training
    held_out = Sampler(data, 16, 0.2, 0).unseen()
    with torch.no_grad():
        total = sum(float(towards.loss(batch)) * len(batch) for batch in held_out)
    assert total / 24 == pytest.approx(best["held_out_loss"])


def test_a_seed_decides_all(data):
    one, same, other = module(), module(), module()
    torch.manual_seed(1)
    trained(one, data)
    torch.manual_seed(2)
    np.random.seed(2)
    trained(same, data)
    trained(other, data, seed=1)
    assert state(one) == state(same)
    assert state(one) != state(other)


def test_it_stops_where_nothing_gets_better(tmp_path):
    told = arrays()
    np.random.default_rng(1).shuffle(told["labels"])
    np.savez(tmp_path / "noise.npz", **told)
    from mlpack.datasets import open_data

    history, _ = trained(module(dropout=0), open_data(str(tmp_path / "noise.npz")), epochs=500, patience=3)
    assert history.stopped == "no better for long"
    losses = [row["held_out_loss"] for row in history.rows]
    assert min(losses[-3:]) > min(losses)
    assert history.steps < 500 * 6


def test_it_keeps_to_its_time_and_cuts_its_schedule_to_it(data):
    history, _ = trained(module(), data, epochs=100_000, seconds=0.5)
    assert history.stopped == "seconds"
    assert history.steps < 100_000 * 6
    assert history.rows[-1]["step"] == history.steps, "the last weights are looked at, too"


def test_time_that_is_not_needed_changes_nothing(data):
    one, other = module(), module()
    trained(one, data)
    history, _ = trained(other, data, seconds=3600)
    assert history.stopped == "all epochs"
    assert state(one) == state(other)


@pytest.mark.parametrize("steps", [2, 6, 7, 20, 36])
def test_it_goes_on_after_any_step(data, tmp_path, steps):
    uninterrupted, net = module(), module()
    whole, _ = trained(uninterrupted, data)
    with pytest.raises(Stopped):
        trained(net, data, tmp_path, stop_at(steps), checkpoint_s=0)
    again = module(seed=5)
    history, towards = trained(again, data, tmp_path, checkpoint_s=0)
    assert state(again) == state(uninterrupted)
    assert towards.steps == 36 - (steps - 1)

    def without_time(those):
        return [{name: value for name, value in row.items() if name != "seconds"} for row in those]

    assert without_time(history.rows) == without_time(whole.rows)


def test_kill_9_loses_a_step_at_most(data, tmp_path):
    here = str(Path(__file__).parent)
    code = textwrap.dedent(f"""
        import os, signal, sys
        sys.path.insert(0, {here!r})
        from rows_to_learn import module, trained
        from mlpack.datasets import open_data

        def after(steps):
            if steps == 17:
                os.kill(os.getpid(), signal.SIGKILL)

        trained(module(), open_data({str(tmp_path / "train.npz")!r}), {str(tmp_path)!r}, after, checkpoint_s=0)
    """)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    assert torch.load(tmp_path / FILE, weights_only=True)["step"] == 16
    assert [path.name for path in tmp_path.iterdir() if ".tmp-" in path.name] == []
    uninterrupted, again = module(), module()
    trained(uninterrupted, data)
    trained(again, data, tmp_path)
    assert state(again) == state(uninterrupted)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no archive"])
def test_a_checkpoint_that_cannot_be_read_is_forgotten(data, tmp_path, content):
    (tmp_path / FILE).write_bytes(content)
    history, towards = trained(module(), data, tmp_path)
    assert (history.steps, towards.steps) == (36, 36)


def interrupted(data, folder):
    """What a training that was killed in its seventh step has kept."""
    with pytest.raises(Stopped):
        trained(module(), data, folder, stop_at(7), checkpoint_s=0)
    return torch.load(folder / FILE, weights_only=True)


def test_a_checkpoint_of_another_module_is_refused(data, tmp_path):
    kept = interrupted(data, tmp_path)
    torch.save({**kept, "tensors": {**kept["tensors"], "4.bias": torch.zeros(CLASSES + 1)}}, tmp_path / FILE)
    with pytest.raises(StageFailed, match="of another module") as refused:
        trained(module(), data, tmp_path)
    assert "--fresh" in refused.value.hint


def test_what_an_evaluation_takes_is_still_known_after_a_kill(data, tmp_path):
    kept = interrupted(data, tmp_path)
    assert kept["evaluation_s"] > 0
    torch.save({**kept, "evaluation_s": 3600.0}, tmp_path / FILE)
    history, _ = trained(module(), data, tmp_path, seconds=3600)
    assert (history.stopped, history.steps) == ("seconds", 6), "there is no time for another evaluation"


def test_nothing_is_written_before_its_time(data, tmp_path):
    with pytest.raises(Stopped):
        trained(module(), data, tmp_path / "kept", stop_at(20))
    assert not (tmp_path / "kept").exists()


def test_what_is_frozen_stays_as_it_is(data):
    net = module()
    for each in (net[0].weight, net[1].weight, net[1].bias):
        each.requires_grad_(False)
    before = state(net)
    history, _ = trained(net, data)
    assert history.best_step > 0
    after = state(net)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"0.bias", "4.weight", "4.bias"}, "a frozen batch norm keeps its statistics"


def test_batch_norms_can_keep_their_statistics(data):
    net = module()
    before = state(net)
    trained(net, data, batch_norm="frozen")
    after = state(net)
    assert after["1.running_mean"] == before["1.running_mean"]
    assert after["1.weight"] != before["1.weight"]


def test_batch_norms_keep_their_statistics_in_batches_of_one_row(data):
    net = module()
    before = state(net)
    history, _ = trained(net, data, batch=1, epochs=1)
    assert history.batch_norm == "frozen"
    assert trained(module(), data, epochs=1)[0].batch_norm == "train"
    assert state(net)["1.running_mean"] == before["1.running_mean"]


def test_dropout_is_on_in_steps_and_off_in_evaluations(data):
    _, towards = trained(module(), data, epochs=1)
    assert towards.modes == [False, False] + [True] * 6 + [False, False]


def test_a_loss_that_is_no_number_is_told(data):
    net = module()

    def broken(batch):
        return towards.loss(batch) * (math.nan if net.training else 1)

    towards = Towards(net)
    from rows_to_learn import options, unheard

    from mlpack.training.loop import train

    with pytest.raises(StageFailed, match="training loss is nan at step 0") as diverged:
        train(net, broken, data, options(), unfinished=Path("nowhere"), seed=0, say=unheard)
    assert diverged.value.hint == "take smaller steps: --set lessons.learning_rate=0.001"


def test_a_module_without_anything_to_learn_is_refused(data):
    net = module().requires_grad_(False)
    with pytest.raises(ModelError, match="nothing of the module can learn"):
        trained(net, data)


def test_a_forward_without_gradients_is_told(data):
    class Deaf(nn.Linear):
        @torch.no_grad()
        def forward(self, x):
            return super().forward(x)

    with pytest.raises(ModelError, match="no gradient reaches"):
        trained(Deaf(WIDTH, CLASSES), data)


def test_every_row_is_learnt_from_once_an_epoch_and_none_that_is_held_out(tmp_path):
    sampler = Sampler(rows(tmp_path, count=50), 8, 0.2, 3)
    held_out = {int(row) for batch in sampler.unseen() for row in batch.rows}
    assert len(held_out) == 10
    epochs = []
    for epoch in range(2):
        steps = range(epoch * sampler.steps_per_epoch, (epoch + 1) * sampler.steps_per_epoch)
        seen = [int(row) for step in steps for row in sampler.of(step).rows]
        assert len(seen) == len(set(seen)) == 40
        assert not held_out & set(seen)
        epochs.append([sampler.of(step).rows.tolist() for step in steps])
    assert epochs[0] != epochs[1]
    again = Sampler(rows(tmp_path, count=50), 8, 0.2, 3)
    assert again.of(7).rows.tolist() == epochs[1][2]


def test_a_module_of_a_fixed_batch_gets_whole_batches(tmp_path):
    sampler = Sampler(rows(tmp_path, count=50), 8, 0.3, 0, fixed=True)
    assert {len(batch) for batch in sampler.unseen()} == {8}
    assert sampler.held_out == 8
    assert {len(sampler.of(step)) for step in range(sampler.steps_per_epoch)} == {8}


@pytest.mark.parametrize(("count", "fixed"), [(2, False), (15, True)])
def test_too_few_rows_are_refused(tmp_path, count, fixed):
    with pytest.raises(DataError, match="too few to learn from"):
        Sampler(rows(tmp_path, count=count), 8, 0.1, 0, fixed=fixed)
