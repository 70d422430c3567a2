"""Calibration is done once for all that needs the same ranges, and again for what does not."""

import onnx
import pytest
from doors import AVX2, VNNI, rows_for

from mlpack.stages.quantize import Quantize


@pytest.fixture(autouse=True)
def empty(tmp_path, monkeypatch):
    monkeypatch.setenv("MLPACK_CACHE", str(tmp_path))
    return tmp_path


def calibrates(bench, model, rows, target=VNNI, threads=1, **options):
    """Whether a run looked for ranges, and those that it went by; what its rules make of them is another matter."""
    job = bench.job(parts={"calibration": bench.data(**rows)}, target=target, threads=threads)
    told = {"numerics": "int8", "method": "static", "operators": "all", **options}
    report = Quantize(**told).run(model, job).report
    ranges = {row["tensor"]: (row["low"], row["high"]) for row in report.tables["found_ranges"]}
    return any("finding ranges" in text for text, _, _ in job.said), ranges


def test_flavours_and_milder_forms_of_one_graph_are_calibrated_once(bench, kept):
    model, rows = kept.ready("conv_net"), rows_for("conv_net", 24)
    first, ranges = calibrates(bench, model, rows)
    assert first
    node = next(node.name for node in onnx.load(model.entry_path).graph.node if node.op_type == "Gemm")
    for options in ({}, {"operators": "weighted"}, {"exclude": (node,)}, {"target": AVX2}):
        again, same = calibrates(bench, model, rows, **options)
        assert not again
        assert same
        assert same.items() <= ranges.items()


@pytest.mark.parametrize(
    "other",
    [
        {"calibration_method": "mse"}, {"samples": 8}, {"batch": 4}, {"threads": 2},
        {"rows": rows_for("conv_net", 24, seed=1)},
    ],
    ids=str,
)  # fmt: skip
def test_other_rows_samples_batches_methods_and_threads_are_looked_at_for_themselves(bench, kept, other):
    model, rows = kept.ready("conv_net"), rows_for("conv_net", 24)
    calibrates(bench, model, rows)
    assert calibrates(bench, model, **{"rows": rows, **other})[0]


def test_what_is_kept_of_fewer_tensors_does_not_serve_more(bench, kept):
    model, rows = kept.ready("transformer"), rows_for("transformer", 24)
    assert calibrates(bench, model, rows, operators="weighted")[0]
    assert calibrates(bench, model, rows, operators="all")[0]
    assert not calibrates(bench, model, rows, operators="weighted")[0]


def test_a_smoothed_graph_has_ranges_of_its_own(bench, kept):
    model, rows = kept.ready("transformer"), rows_for("transformer", 24)
    assert calibrates(bench, model, rows)[0]
    assert calibrates(bench, model, rows, smooth=0.5)[0]
    assert not calibrates(bench, model, rows, smooth=0.5)[0]
