"""The search tries fewer threads where it may, and a model keeps to the number that it was judged and timed with."""

import numpy as np
import pytest

import mlpack
from mlpack.core.threads import usable_threads

QUICK = ("profile_latency.launches=2", "profile_latency.seconds=0.05", "profile_latency.batches=[1]")
needs_two = pytest.mark.skipif(usable_threads() < 2, reason="fewer threads than one there are not")


@pytest.fixture
def wanted(place, monkeypatch):
    """A model so small that a second thread is of no use, with rows and labels."""
    monkeypatch.chdir(place)
    (place / "net.py").write_text(
        "import torch\n\ndef model():\n    torch.manual_seed(0)\n    return torch.nn.Linear(8, 3)\n"
    )
    x = np.random.default_rng(0).standard_normal((400, 8)).astype(np.float32)
    np.savez("data.npz", input=x, labels=np.arange(400) % 3)
    return {"model": "net.py:model", "data": "data.npz", "max_drop": "5pt", "store": "artifacts", "settings": QUICK}


@needs_two
def test_the_search_judges_fewer_threads_by_what_they_measure(wanted):
    artifact = mlpack.optimize(**wanted, auto=True).stored.artifact
    by_label = {each.label: each for each in artifact.candidates}
    fewer = {label: each for label, each in by_label.items() if label.endswith(("thread", "threads"))}
    assert 1 <= len(fewer) <= 3 * (usable_threads().bit_length() - 1)
    for label, form in fewer.items():
        whole = by_label[label.rpartition(" · ")[0]]
        ratio = form.latency["geometric_mean_ms"] / whole.latency["geometric_mean_ms"]
        assert form.chosen or ("no faster than with" in form.why) == (ratio > 1 / 1.1), (label, form.why, ratio)
        assert form.accuracy is not None or form.why.startswith("no faster")
    told = artifact.model.backend_options
    chosen = next(each.label for each in artifact.candidates if each.chosen)
    assert (told.most_threads is not None) == (chosen in fewer)
    assert artifact.latency[0].optimized.threads == told.threads
    assert artifact.latency[0].baseline.threads == usable_threads()


@pytest.mark.slow
@needs_two
def test_a_build_tries_them_too_and_begins_with_the_artifacts_graph(wanted):
    first = mlpack.optimize(**wanted, auto=True, backend="onnxruntime").stored.artifact
    built = mlpack.build(backend="onnxruntime").stored.artifact
    fewer = [each for each in built.candidates if each.label.endswith(("thread", "threads"))]
    assert fewer
    for form in fewer:
        assert (form.numerics, form.recipe) == (first.model.numerics, "compile")
        assert form.accuracy is not None or form.why.startswith("no faster"), form.why
    assert built.parent.digest == first.digest


@needs_two
@pytest.mark.parametrize("asked", [{"threads": 2, "auto": True}, {}], ids=["a number of threads", "no search"])
def test_nothing_is_tried_with_fewer_threads_unasked(wanted, asked):
    artifact = mlpack.optimize(**wanted, **asked).stored.artifact
    assert not any("thread" in each.label for each in artifact.candidates)
    assert artifact.model.backend_options.threads == usable_threads()


@needs_two
def test_a_bound_on_threads_holds_wherever_the_model_runs(wanted):
    done = mlpack.optimize(**{**wanted, "settings": (*QUICK, "compile.most_threads=1")})
    artifact = done.stored.artifact
    assert artifact.model.backend_options.threads == 1
    record, all_of_them = artifact.latency[0], usable_threads()
    assert (record.threads, record.baseline.threads, record.optimized.threads) == (all_of_them, all_of_them, 1)
    assert "1 of them used by the model" in done._repr_html_()
    timed = mlpack.bench([wanted["model"], str(done.stored.path)], batches=[1], launches=2, seconds=0.05)
    assert [each.latency[0].timing.threads for each in timed.contenders] == [all_of_them, 1]
    assert "1 thread" in mlpack.show(str(done.stored.path))._repr_html_()
