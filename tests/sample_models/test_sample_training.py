"""Every node of the int8 graph of every sample model answers in torch what it answers in ONNX Runtime."""

import sys
from pathlib import Path

import onnx
import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "stages"))

from doors import VNNI, Bench
from sample_rows import inputs
from test_sample_models import FOLDERS, sample_rows

from mlpack.quantization.shown import showing, tensors_of
from mlpack.quantization.trainable import Trainable
from mlpack.stages.export import Export
from mlpack.stages.quantize import Quantize
from mlpack.stages.simplify import Simplify

SAMPLES, ROWS = 64, 8
SAME = 1e-4
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
        module = Trainable(graph, learn_ranges=True)
        tensors = module.tensors()
        session = showing(graph, tensors, tmp_path / "literal.onnx", 1, literal=True)
        difference, operator = module.farthest({**rows, **tensors_of(session, tensors, rows)})
        assert difference < SAME, (operators, operator)
