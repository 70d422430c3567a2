"""Contenders are timed in processes of their own; a request is split into components."""

import pytest
from doors import VNNI

from mlpack.core.arrays import load_arrays
from mlpack.core.backend_options import BackendOptions
from mlpack.engine.job import JobSpec, RunJob, with_path
from mlpack.stages.profile_latency import OPTIMIZED, SAMPLES, ProfileLatency


def say(text, done=None, total=None):
    pass


def served(model, backend):
    return model.model_copy(update={"backend": backend, "backend_options": BackendOptions(threads=1)})


@pytest.fixture
def timed(bench, kept):
    def run(model, rivals, **options):
        spec = JobSpec(
            out=bench.job().out, target=VNNI, threads=1, seed=0,
            rivals={label: with_path(rival) for label, rival in rivals.items()},
        )  # fmt: skip
        stage = ProfileLatency(**{"launches": 2, "seconds": 0.02, **options})
        return stage.run(model, RunJob(spec, model, say)).report, load_arrays(spec.out / SAMPLES)

    return run


@pytest.mark.slow
def test_a_row_for_each_contender_and_batch_and_shares_that_sum_to_one(timed, kept):
    rivals = {"baseline": kept.factory("mlp"), "openvino": served(kept.ready("mlp"), "openvino")}
    report, samples = timed(served(kept.ready("mlp"), "onnxruntime"), rivals, batches=(1, 4))
    latency = report.tables["latency"]
    assert {(row["contender"], row["batch"]) for row in latency} == {
        (label, batch) for label in (OPTIMIZED, *rivals) for batch in (1, 4)
    }
    assert len(latency) == 6
    for row in latency:
        assert row["launches"] == 2
        assert row["p50"] > 0
        calls = [samples[f"{row['contender']}/{row['batch']}/{launch}"] for launch in (0, 1)]
        assert row["n"] == sum(len(each) for each in calls)
        assert (row["p99"] is None) == (row["p99_reason"] is not None)
        assert ("speedup_over" in row) == (row["contender"] != OPTIMIZED)
    for parts in (report.tables["components"], report.tables["components_before"]):
        assert [parts[0]["name"], parts[-1]["name"]] == ["copy in", "copy out"]
        assert len(parts) > 2
        assert sum(part["share"] for part in parts) == pytest.approx(1)
        assert all(part["p50"] >= 0 for part in parts)
    assert any(part["name"].startswith("aten::") for part in report.tables["components_before"])
    assert report.metrics["launches"] == 2
    assert report.metrics["threads"] == 1


@pytest.mark.slow
def test_a_model_with_a_static_batch_is_timed_at_that_batch(timed, kept):
    inputs = tuple(spec.model_copy(update={"dims": (4, 8)}) for spec in kept.ready("mlp").inputs)
    model = served(kept.ready("mlp").model_copy(update={"inputs": inputs}), "onnxruntime")
    report, _ = timed(model, {}, batches=(1, 8), components=False)
    assert [row["batch"] for row in report.tables["latency"]] == [4]
    assert report.tables["components"] == []
