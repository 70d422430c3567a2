"""The int8 graph of every sample model answers in torch what it answers in ONNX Runtime: so it can be trained."""

import sys
from pathlib import Path

import onnx
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "stages"))

from doors import VNNI, Bench, relative
from sample_rows import inputs
from test_sample_models import FOLDERS, sample_rows

from mlpack.quantization.shown import showing
from mlpack.quantization.trainable import Trainable
from mlpack.stages.export import Export
from mlpack.stages.quantize import Quantize
from mlpack.stages.simplify import Simplify

SAMPLES, ROWS = 64, 8
# Sums in another order round a value that lies halfway to the other integer, and layers after it go on from there.
SAME = 0.02
# The exporter warns that two inputs share the symbol "batch", which is meant.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning")]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_torch_computes_what_the_graph_says(folder, tmp_path):
    arrays = inputs(sample_rows(folder, SAMPLES))
    bench = Bench(tmp_path)
    data = bench.data(**arrays)
    simple = (
        Simplify()
        .run(Export().run(bench.load(f"{folder / 'model.py'}:model", data), bench.job()).model, bench.job())
        .model
    )
    rows = {name: array[:ROWS] for name, array in arrays.items()}
    for operators in ("weighted", "all"):
        stage = Quantize(numerics="int8", method="static", operators=operators)
        made = stage.run(simple, bench.job(parts={"calibration": data}, target=VNNI)).model
        graph = onnx.load(made.entry_path)
        session = showing(graph, [], tmp_path / "literal.onnx", 1, literal=True)
        names = [each.name for each in session.get_outputs()]
        expected = dict(zip(names, session.run(names, rows), strict=True))
        with torch.no_grad():
            got = Trainable(graph, learn_ranges=True)({name: torch.tensor(array) for name, array in rows.items()})
        for name, array in expected.items():
            assert relative(array, got[name].numpy()) < SAME, (operators, name)
