"""`mlpack gate`: every verdict and exit code, the reports that it writes, and the file that stands for a baseline."""

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "runtimes"))

N = 4000
JUDGED = {"accuracy__dataset": "d" * 64, "accuracy__part": "p" * 64}


def right(share, flips=0, seed=0):
    """A score per sample: so many right; `flips` more wrong."""
    score = (np.arange(N) < share * N).astype(np.uint8)
    score[np.random.default_rng(seed).choice(int(share * N), flips, replace=False)] = 0
    return score


@pytest.fixture
def publish(place):
    from tiny_artifacts import make

    versions = []

    def one(optimized, original=None, **changes):
        versions.append(1)
        kept = {"baseline": right(0.9) if original is None else original, "optimized": optimized}
        return make(place / "artifacts", version=len(versions), kept=kept, **{**JUDGED, **changes})

    return one


def test_every_group_has_to_hold_its_limit(publish, gate):
    """One percent of all is lost, and all of it in one language."""
    language = np.array(["de", "en", "fr", "pt"])[np.arange(N) % 4]
    harmed = right(0.9)
    harmed[(language == "fr").nonzero()[0][:40]] = 0
    publish(right(0.9), group=language)
    publish(harmed, original=right(0.9), group=language)
    assert gate("--max-drop", "2%").code == 0
    done = gate("--max-drop", "2%", "--max-group-drop", "2%")
    assert done.code == 5
    check = done.document["checks"][2]
    assert check["name"] == "worst of 4 groups, against tiny-mlp@1"
    assert check["says"].startswith("fr drops 4.00pt")
    low, high = check["interval"]
    assert low < 0.04 < high
    assert done.document["checks"][3]["name"] == "worst of 4 groups, against the original (model.pt2)"
    assert done.document["checks"][3]["says"] == check["says"]
    assert gate("--max-drop", "2%", "--max-group-drop", "9%").code == 0
    assert gate("--max-group-drop", "2").code == 2


def test_small_losses_of_a_group_do_not_add_up_unseen(publish, gate):
    """The baseline has already lost 4% of one language; the new one loses nothing more."""
    language = np.array(["de", "en", "fr", "pt"])[np.arange(N) % 4]
    harmed = right(0.9)
    harmed[(language == "fr").nonzero()[0][:40]] = 0
    publish(harmed, original=right(0.9), group=language)
    publish(harmed, original=right(0.9), group=language)
    done = gate("--max-drop", "2%", "--max-group-drop", "2%")
    assert done.code == 5
    assert [check["verdict"] for check in done.document["checks"][2:]] == ["pass", "fail"]


def test_a_group_limit_needs_groups(publish, gate):
    publish(right(0.9))
    publish(right(0.9))
    done = gate("--max-group-drop", "2%")
    assert done.code == 2
    assert "array `group`" in done.document["error"]["hint"]


@pytest.fixture
def gate(cli):
    def call(*words, reference="tiny-mlp@2", against="tiny-mlp@1"):
        return cli("gate", reference, "--against", against, "--no-latency", "--json", *words)

    return call


def verdicts(done):
    return [check["verdict"] for check in done.document["checks"]]


@pytest.mark.parametrize(
    ("flips", "limit", "code", "verdict"),
    [(2, "1%", 0, "pass"), (30, "1%", 0, "likely"), (38, "0.91pt", 6, "inconclusive"), (80, "1%", 5, "fail")],
)
def test_each_verdict_has_its_exit_code(publish, gate, flips, limit, code, verdict):
    publish(right(0.9))
    publish(right(0.9, flips), original=right(0.9))
    done = gate("--max-drop", limit)
    assert done.document["verdict"] == verdict, done.document["checks"][0]
    assert done.code == code
    assert ("error" in done.document) == (code != 0)
    assert (gate("--max-drop", limit, "--require", "proven").code == 0) == (verdict == "pass")


def test_small_drops_do_not_add_up_unseen(publish, gate):
    """Against the version before it is inside the limit; against its original it is not."""
    publish(right(0.9, 60))
    publish(right(0.9, 62), original=right(0.9))
    done = gate()
    assert verdicts(done) == ["pass", "fail"]
    assert "the original" in done.document["checks"][1]["name"]
    assert done.code == 5


def test_other_rows_are_refused_and_not_guessed(publish, gate):
    publish(right(0.9))
    publish(right(0.9), accuracy__part="q" * 64)
    done = gate()
    assert done.code == 2
    assert "different rows" in done.document["error"]["message"]
    assert "--data" in done.document["error"]["hint"]


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ({"data": {"output": "a"}}, {"data": {"output": "b"}}, "tiny-mlp@2 was judged by its output a, tiny-mlp@1"),
        ({"accuracy": {"check_accuracy": {"metric_sha256": "1" * 64}}}, {}, "its file has changed since"),
    ],
    ids=["another output", "another metric under the same name"],
)
def test_what_was_judged_by_something_else_is_refused(publish, gate, cli, one, other, said):
    publish(right(0.9), recipe=other)
    publish(right(0.9), recipe=one)
    cli("gate", "tiny-mlp@1", "--write-baseline", "baseline.json")
    for against in ("tiny-mlp@1", "baseline.json"):
        done = gate(against=against)
        assert done.code == 2
        assert said in done.document["error"]["message"]
        assert "--data" in done.document["error"]["hint"]
    assert gate(against="tiny-mlp@2").code == 0


def test_an_artifact_from_before_there_were_fingerprints_is_refused(publish, gate):
    publish(right(0.9), accuracy__part=None)
    publish(right(0.9))
    assert "does not say which rows" in gate().document["error"]["message"]


def test_a_file_stands_for_the_baseline(publish, gate, cli, place):
    publish(right(0.9))
    publish(right(0.9, 80))
    written = cli("gate", "tiny-mlp@1", "--write-baseline", "baseline.json", "--json")
    assert written.code == 0
    assert written.document["of"] == "tiny-mlp@1"
    assert (place / "baseline.json").stat().st_size < 4096
    by_file, by_artifact = gate(against="baseline.json"), gate()
    assert by_file.code == by_artifact.code == 5
    same = ("verdict", "measured", "interval", "limit", "says")
    first, second = (done.document["checks"][0] for done in (by_file, by_artifact))
    assert [first[name] for name in same] == [second[name] for name in same]
    assert gate(against="baseline.json", reference="tiny-mlp@1").code == 0


def test_a_file_tells_what_has_changed(publish, gate, cli):
    """As the artifact itself does: in its format, its options, its libraries."""
    publish(right(0.9))
    publish(right(0.9), target={"name": "other", "title": "another"}, environment={"python": "3.99"})
    cli("gate", "tiny-mlp@1", "--write-baseline", "baseline.json")
    by_file, by_artifact = (gate(against=each).document["changes"] for each in ("baseline.json", "tiny-mlp@1"))
    assert by_file == by_artifact
    assert ("artifact", "target") in {(each["part"], each["what"]) for each in by_file}
    told = cli("gate", "tiny-mlp@2", "--against", "baseline.json", "--no-latency").err
    assert "what has changed:" in told
    assert max(map(len, told.splitlines())) <= 80


def test_what_optimize_foretells_is_what_the_gate_answers(publish, gate):
    from mlpack.core.summary import Facts
    from mlpack.reports.closing import closing

    cases = [(2, "1%", "pass"), (30, "1%", "likely"), (38, "0.91pt", "inconclusive")]
    for version, (flips, limit, verdict) in enumerate(cases, start=1):
        made = {"accuracy__verdict": verdict, "accuracy__limit_text": limit, "environment__cpu": "a CPU"}
        stored = publish(right(0.9, flips), original=right(0.9), **made)
        (told,) = (dict(part.rows)["gate"] for part in closing(stored) if isinstance(part, Facts))
        named = f"tiny-mlp@{version}"
        done = gate(reference=named, against=named)
        assert done.document["checks"][1]["verdict"] == verdict, done.document["checks"]
        assert f"exit {done.code}" in told[0]


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"mlpack_baseline": 1}', "\x00\xff", '{"mlpack_baseline": 99}'])
def test_a_damaged_file_is_refused(publish, gate, place, content):
    publish(right(0.9))
    (place / "baseline.json").write_bytes(content.encode("latin-1"))
    done = gate(reference="tiny-mlp@1", against="baseline.json")
    assert done.code == 2
    assert done.document["error"]["hint"]


def test_a_file_holds_no_model_to_time(publish, cli):
    publish(right(0.9))
    cli("gate", "tiny-mlp", "--write-baseline", "baseline.json")
    done = cli("gate", "tiny-mlp", "--against", "baseline.json", "--max-p50-regression", "5%")
    assert done.code == 2
    assert "which tiny-mlp@1 (baseline.json) does not hold" in done.err


def test_junit_summary_and_annotations(publish, gate, cli, place, monkeypatch):
    publish(right(0.9))
    publish(right(0.9, 80), original=right(0.9, 79), model__numerics="int8")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    done = gate("--junit", "out/gate.xml", "--summary", "gate.md", "--max-size", "2KB")
    assert done.code == 5
    suite = ET.fromstring((place / "out" / "gate.xml").read_bytes()).find("testsuite")  # noqa: S314 - we wrote it
    assert [suite.get(name) for name in ("tests", "failures", "errors", "skipped")] == ["3", "1", "0", "0"]
    cases = suite.findall("testcase")
    assert "2.00pt" in cases[0].find("failure").get("message")
    assert cases[2].find("failure") is None
    text = (place / "gate.md").read_text()
    assert text.startswith("## ❌ tiny-mlp@2 against tiny-mlp@1: fail")
    assert "| model | numerics | fp32 | int8 |" in text
    (line,) = [line for line in done.err.splitlines() if line.startswith("::")]
    assert line.startswith("::error title=mlpack%3A accuracy%2C against tiny-mlp@1::fail: top1 drops 2.00pt")
    assert "%25" in line
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(place / "job.md"))
    gate()
    assert (place / "job.md").read_text() == text.replace(
        next(row for row in text.splitlines(keepends=True) if row.startswith("| size")), ""
    )


def test_size_is_judged_without_running_anything(publish, gate):
    publish(right(0.9))
    publish(right(0.9), model__size_bytes=1200)
    assert gate("--max-size", "+10%").code == 5
    assert gate("--max-size", "+20%").code == 0
    assert gate("--max-size", "ten").code == 2


def test_what_is_asked_for_wrongly(publish, cli, gate):
    publish(right(0.9))
    assert "--against" in cli("gate", "tiny-mlp").err
    assert gate("--metric", "f1", reference="tiny-mlp@1").code == 2
    assert gate("--max-p99", "20ms", reference="tiny-mlp@1").code == 2
    assert gate("--max-drop", "1", reference="tiny-mlp@1").code == 2
    assert gate(reference="tiny-mlp@7").code == 2
    assert gate(against="nothing/here.json", reference="tiny-mlp@1").code == 2


def test_people_get_a_screen_that_fits(publish, cli):
    publish(right(0.9))
    publish(right(0.9, 2), original=right(0.9), model__numerics="int8")
    done = cli("gate", "tiny-mlp@2", "--against", "tiny-mlp@1", "--no-latency")
    assert done.code == 0
    assert done.out == ""
    assert "tiny-mlp@2 against tiny-mlp@1: PASS" in done.err
    assert "what has changed:" in done.err
    assert "int8" in done.err


@pytest.mark.slow
def test_times_are_measured_beside_the_baseline(publish, cli):
    publish(right(0.9))
    publish(right(0.9))
    words = ("--max-p50-regression", "900%", "--max-p99", "5s", "--max-slow", "5%:5s", "--max-memory", "+50%", "--json")
    done = cli("gate", "tiny-mlp@2", "--against", "tiny-mlp@1", "--threads", "1", *words)
    named = {check["name"]: check for check in done.document["checks"]}
    assert set(named) == {
        "accuracy, against tiny-mlp@1", "accuracy, against the original (model.pt2)",
        "P50 at batch 1, against tiny-mlp@1", "P50 at batch 8, against tiny-mlp@1",
        "P99 at batch 1", "calls over 5000 ms at batch 1", "memory",
    }  # fmt: skip
    # Tests run side by side: what disturbs the baseline makes a median say nothing.
    answers = {name: {"pass", "unstable"} if name.startswith("P50") else {"pass"} for name in named}
    assert all(check["verdict"] in answers[name] for name, check in named.items()), named
    low, high = named["P50 at batch 1, against tiny-mlp@1"]["interval"]
    assert low < named["P50 at batch 1, against tiny-mlp@1"]["measured"] < high
    json.dumps(done.document)


@pytest.mark.slow
def test_other_data_is_scored_with_both_models(publish, cli, place):
    """The labels are what the model answers on half of the rows, and never on the other half."""
    import onnxruntime as ort

    stored = publish(right(0.9))
    publish(right(0.9))
    features = np.random.default_rng(2).normal(size=(600, 8)).astype(np.float32)
    session = ort.InferenceSession(str(stored.path / "model" / "model.onnx"), providers=["CPUExecutionProvider"])
    answers = session.run(["logits"], {"features": features})[0].argmax(1)
    labels = np.where(np.arange(600) % 2, answers, (answers + 1) % 3)
    np.savez(place / "other.npz", features=features, labels=labels)
    done = cli(
        "gate",
        "tiny-mlp@2",
        "--against",
        "tiny-mlp@1",
        "--data",
        "other.npz",
        "--max-drop",
        "10%",
        "--no-latency",
        "--json",
    )
    assert done.code == 0, done.err
    accuracy, original = done.document["checks"]
    assert accuracy["verdict"] == "pass"
    assert "on 600 samples; errors 300 → 300" in accuracy["says"]
    assert original["name"] == "accuracy, against the original (model.pt2) when it was made"
    assert original["verdict"] == "pass"
    publish(right(0.9, 400), original=right(0.9))
    words = ("--data", "other.npz", "--max-drop", "10%", "--no-latency", "--json")
    done = cli("gate", "tiny-mlp@3", "--against", "tiny-mlp@1", *words)
    assert done.code == 5, "small drops do not add up unseen because the data is another one"
    accuracy, original = done.document["checks"]
    assert (accuracy["verdict"], original["verdict"]) == ("pass", "fail")


@pytest.mark.slow
def test_a_disturbed_timing_is_said_and_never_a_failure(publish, cli, place):
    """Two processes that spin take the machine: a median that cannot be judged is unstable, with the reason."""
    publish(right(0.9))
    publish(right(0.9))
    spin = [sys.executable, "-c", "while True: pass"]
    busy = [subprocess.Popen(spin) for _ in range(2 * len(os.sched_getaffinity(0)))]
    try:
        words = ("--max-p99", "0.001ms", "--threads", "1", "--summary", "gate.md", "--json")
        done = cli("gate", "tiny-mlp@2", "--against", "tiny-mlp@1", *words)
    finally:
        for each in busy:
            each.kill()
            each.wait()
    assert any("other processes" in note for note in done.document["notes"])
    assert {check["verdict"] for check in done.document["checks"]} <= {"pass", "unstable"}
    assert done.code == 6
    assert "other processes" in (place / "gate.md").read_text()
