"""bench, predict and plan through the command line, for people and as JSON."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "runtimes"))

TINY = Path(__file__).parents[2] / "sample_models" / "tiny-mlp"


@pytest.fixture
def tiny(place):
    from tiny_artifacts import make

    make(place / "artifacts")
    return place / "artifacts"


def widest(text):
    """Of tables and their captions: what a busy machine is warned of is one line however long it is."""
    return max(len(line) for line in text.splitlines() if not line.startswith("warning: "))


@pytest.mark.slow
def test_bench_prints_a_table_and_components(cli, tiny):
    words = ("bench", "tiny-mlp", "--launches", "2", "--seconds", "0.03", "--batch", "1", "--threads", "1")
    done = cli(*words, "--against", "./artifacts/tiny-mlp/1")
    assert done.code == 0
    assert done.out == ""
    for part in ("P50 ms", "95% interval", "peak RSS", "copy in", "copy out", "1 thread,", "as fast as tiny-mlp@1 (2)"):
        assert part in done.err, part
    assert widest(done.err) <= 80
    document = cli(*words, "--json").document
    assert list(document) == [
        "threads", "machine", "unit", "rows", "launches", "steady", "notes", "ended", "contenders",
        "against", "left_out",
    ]  # fmt: skip
    assert sum(each["share"] for each in document["contenders"][0]["components"]) == pytest.approx(1)
    usage = document["contenders"][0]["usage"]
    assert usage["peak_rss_bytes"] > 30e6
    assert usage["device_ms"] is None, "a CPU has no clock of its own"


@pytest.mark.slow
def test_a_disturbed_timing_is_an_error_only_where_that_is_asked(cli, tiny):
    """Another process takes the CPUs meanwhile: the numbers are shown all the same."""
    words = ("bench", "tiny-mlp", "--launches", "2", "--seconds", "0.2", "--batch", "1", "--json")
    burning = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(len(os.sched_getaffinity(0)))
    ]
    try:
        disturbed = cli(*words, "--require", "steady")
        told = cli(*words)
    finally:
        for each in burning:
            each.kill()
            each.wait()
    assert disturbed.code == 6
    assert disturbed.document["error"]["kind"] == "GateInconclusive"
    assert disturbed.document["steady"] is False
    assert disturbed.document["contenders"][0]["latency"][0]["p50"] > 0
    assert told.code == 0
    assert cli("bench", "--server", "http://127.0.0.1:1", "--require", "steady").code == 2


@pytest.mark.slow
def test_a_sweep_names_the_knee_and_the_best_batch(cli, tiny):
    words = ("bench", "tiny-mlp", "--sweep", "--launches", "2", "--seconds", "0.02", "--threads", "1")
    done = cli(*words, "--max-p99", "1s", "--json")
    assert done.code == 0
    (contender,) = done.document["contenders"]
    assert [each["batch"] for each in contender["latency"]] == [1, 2, 4, 8, 16, 32, 64]
    rate = contender["sweep"]["throughput"]
    assert str(contender["sweep"]["knee"]) in rate
    carried = [each for each in contender["latency"] if each["p99"] is not None]
    assert carried, "thousands of calls carry a P99"
    # Over two launches, an interval may reach beyond a limit that every call was far below.
    within = [str(each["batch"]) for each in carried if each["p99_ci95"][1] <= 1000]
    assert contender["sweep"]["best"] == max(map(int, within), key=lambda batch: rate[str(batch)], default=None)
    told = cli(*words).err
    assert "samples/s" in told
    assert "knee" in told
    assert widest(told) <= 80


def test_bench_refuses_in_its_own_words(cli, tiny):
    assert cli("bench", "tiny-mlp", "--sweep", "--batch", "1").code == 2
    assert cli("bench", "tiny-mlp", "--max-p99", "20").code == 2
    assert cli("bench", "tiny-mlp", "--batch", "1,x").code == 2
    done = cli("bench", "tiny-mlp", "--backend", "nope", "--json")
    assert done.code == 2
    assert done.document["error"]["kind"] == "UsageError"
    assert cli("bench", "tiny-mlp", "--launches", "1").code == 2


def test_predict_writes_what_it_says(cli, tiny, place):
    np.savez(place / "rows.npz", features=np.ones((30, 8), np.float32))
    done = cli("predict", "--data", "rows.npz", "--out", "y.npz", "--json")
    assert done.code == 0
    document = done.document
    assert document["samples"] == 30
    assert document["path"] == str(place / "y.npz")
    with np.load(document["path"]) as written:
        for name, told in document["outputs"].items():
            assert (written[name].dtype.name, list(written[name].shape)) == (told["dtype"], told["shape"])
    again = cli("predict", "--data", "rows.npz", "--out", "y.npz")
    assert again.code == 2
    assert "--force" in again.err
    assert "30 samples" in cli("predict", "--data", "rows.npz", "--out", "y.npz", "--force").err
    assert "--out is missing" in cli("predict", "tiny-mlp", "--data", "rows.npz").err


def test_plan_says_what_would_run(cli, place):
    words = ("plan", f"{TINY}/model.py:model", "--data", str(TINY / "eval.npz"), "--target", "a100", "--int8")
    done = cli(*words, "--why")
    assert done.code == 0
    for part in ("would run", "latency is not measured here", "no earlier run", "near the limit more data will not"):
        assert part in done.err, part
    assert widest(done.err) <= 80
    document = cli(*words, "--json").document
    assert [each["stage"] for each in document["steps"]] == ["load", "export", "simplify", "quantize", "compile"]
    assert not document["decision"]["enough"]
    dry = cli("optimize", *words[1:], "--dry-run", "--json")
    assert dry.document == document
    refused = cli(*words[:-1], "--fp8")
    assert refused.code == 2
    assert "has no fp8" in refused.err
