"""On every sample model calibration finds the ranges of onnxruntime's calibrators, within one of their bins.

With entropy one tensor in ten may have another threshold: see `FLAT`.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnxruntime.quantization.calibrate import CalibrationMethod, create_calibrator
from onnxruntime.quantization.shape_inference import quant_pre_process

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "stages"))

from doors import Bench
from sample_rows import inputs
from test_sample_models import FOLDERS, sample_rows

from mlpack.quantization.calibrate import calibrate
from mlpack.quantization.observers import observer
from mlpack.stages.export import Export
from mlpack.stages.simplify import Simplify

# A share of no whole number of values: the rank that it names is the same in any arithmetic.
CUT = 99.987
BINS = 2048
SAMPLES, BATCH = 64, 16
THEIRS = {
    "minmax": (CalibrationMethod.MinMax, {}),
    "percentile": (CalibrationMethod.Percentile, {"percentile": CUT, "symmetric": False}),
    "entropy": (CalibrationMethod.Entropy, {"num_bins": BINS}),
}
# Its histograms fail where a mask makes values of -3.4e38 ("Too many bins"); its smallest and largest do not.
MASKED = {"reviews-bert", "reviews-minilm"}
# The divergence is flat about its least value, and bins that are joined share out what lies on an edge of theirs.
FLAT = 0.1
# The exporter warns that two inputs share the symbol "batch", which is meant.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning")]


class Reader:
    """Batches for onnxruntime."""

    def __init__(self, batches):
        self.batches = iter(batches)

    def get_next(self):
        return next(self.batches, None)


@pytest.fixture(scope="module", params=FOLDERS, ids=lambda folder: folder.name)
def prepared(request, tmp_path_factory):
    """A sample model as the quantizer gets it, and batches of its rows."""
    folder, place = request.param, tmp_path_factory.mktemp("ranges")
    arrays = inputs(sample_rows(folder, SAMPLES))
    bench = Bench(place)
    source = bench.load(f"{folder / 'model.py'}:model", bench.data(**arrays))
    exported = Export().run(source, bench.job()).model
    simple = Simplify().run(exported, bench.job()).model
    quant_pre_process(simple.entry_path, place / "prepared.onnx", skip_symbolic_shape=True)
    batches = [
        {name: array[start : start + BATCH] for name, array in arrays.items()} for start in range(0, SAMPLES, BATCH)
    ]
    return folder.name, place / "prepared.onnx", batches


@pytest.mark.parametrize("method", THEIRS)
def test_ranges_are_those_of_onnxruntime_within_a_bin(prepared, tmp_path, capsys, method):
    name, path, batches = prepared
    if name in MASKED and method != "minmax":
        pytest.skip("onnxruntime has no such ranges where values stand for infinity")
    theirs, options = THEIRS[method]
    calibrator = create_calibrator(path, None, str(tmp_path / "theirs.onnx"), theirs, extra_options=options)
    calibrator.collect_data(Reader(batches))
    expected = {
        tensor: [float(np.squeeze(end)) for end in each.range_value]
        for tensor, each in calibrator.compute_data().data.items()
    }
    graph = onnx.load(path)

    def ours(way):
        made = observer(way, symmetric=False, cut=CUT)
        return {each.tensor: each for each in calibrate(graph, sorted(expected), batches, made, threads=2, cut=True)}

    whole, found = ours("minmax"), ours(method)
    finite = [tensor for tensor in expected if not whole[tensor].infinite]
    assert len(finite) > len(expected) / 2
    far = []
    for tensor in finite:
        width = 2 * max(abs(whole[tensor].low), abs(whole[tensor].high)) / BINS
        got = found[tensor].low, found[tensor].high
        if max(abs(one - other) for one, other in zip(got, expected[tensor], strict=True)) > 1.01 * width:
            far.append((tensor, got, expected[tensor], width))
    assert len(far) <= (max(1, FLAT * len(finite)) if method == "entropy" else 0), far
