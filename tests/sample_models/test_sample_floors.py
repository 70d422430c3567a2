"""The floor of every sample model lies below what a run of it takes on this machine."""

import math
import os
import sys
import time
from pathlib import Path

import onnxruntime
import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "stages"))

from doors import Bench
from sample_rows import inputs
from test_sample_models import FOLDERS, sample_rows

from mlpack.core.targets import load_target
from mlpack.measure.graph_cost import graph_cost
from mlpack.measure.roofline import floors_ms
from mlpack.stages.export import Export

ROWS, RUNS = 8, 5
# The exporter warns that two inputs share the symbol "batch", which is meant.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning")]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_no_run_is_faster_than_the_floor(folder, tmp_path):
    arrays = inputs(sample_rows(folder, ROWS))
    bench = Bench(tmp_path)
    model = Export().run(bench.load(f"{folder / 'model.py'}:model", bench.data(**arrays)), bench.job()).model
    feeds = {spec.name: arrays[spec.name] for spec in model.inputs}
    sizes = {
        dim: size
        for spec in model.inputs
        for dim, size in zip(spec.dims, feeds[spec.name].shape, strict=True)
        if isinstance(dim, str)
    }
    cost = graph_cost(model.entry_path, sizes)
    assert cost.operations > 0
    session = onnxruntime.InferenceSession(model.entry_path)
    best = math.inf
    # A machine that is busy makes the measurement longer, and the bound hold all the more.
    for _ in range(RUNS):
        started = time.perf_counter()
        session.run(None, feeds)
        best = min(best, (time.perf_counter() - started) * 1e3)
    assert 0 < floors_ms(cost, load_target("cpu"), os.cpu_count())["fp32"] <= best
