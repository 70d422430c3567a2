"""Every sample model becomes an engine by TensorRT-RTX, for three generations of cards, in each kind of numerics."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from doors import A100, Bench

from mlpack.backends.tensorrt_plan import build_of
from mlpack.core.targets import load_target
from mlpack.datasets import open_data
from mlpack.stages.build_engine import BuildEngine
from mlpack.stages.export import Export
from mlpack.stages.quantize import Quantize
from mlpack.stages.simplify import Simplify

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("tensorrt_rtx_bindings") is None, reason="TensorRT-RTX has no wheel for this platform"
    ),
]
SAMPLES = Path(__file__).parents[2] / "sample_models"
# Those whose rows are no arrays are calibrated on synthetic ones: types and sizes do not depend on the ranges.
WITHOUT_ARRAYS = {
    "emoji-efficientnet": ("image=float32:batch,3,128,128",),
    "words-gru": ("input_ids=int64:batch,length", "attention_mask=int64:batch,length"),
    "reviews-bert": (),
}
LENGTHS = (1, 16, 64)
TARGETS = (A100, load_target("a10"), load_target("rtx5090"))
# Layers that multiply in int8, where that is not all of them: recurrent layers stay in float.
QUANTIZED = {"digit-lines": 4, "words-gru": 1}
# Millions of weights: the plan's own kernels are little beside them.
LARGE = {"emoji-efficientnet", "reviews-bert", "reviews-minilm"}
# Fifty convolutions, each with an int8 kernel of its own of some 100 kB: as much as the weights take in fp16.
KERNELS = {"emoji-efficientnet"}


def exported(bench, name, folder):
    """The graph, and rows to calibrate on."""
    spec = WITHOUT_ARRAYS.get(name)
    source = f"{SAMPLES / name / 'model.py'}:model"
    if name == "reviews-bert":
        subprocess.run([sys.executable, SAMPLES / name / "model.py", folder], check=True, capture_output=True)
        source = folder
    if spec is None:
        data = open_data(str(SAMPLES / name / "eval.npz"))
        model = bench.load(source, data)
    else:
        model = bench.load(source, inputs=spec)
        data = open_data("random:16", model.inputs, seed=0)
    parts = {"calibration": data}
    ready = Simplify().run(Export().run(model, bench.job(parts=parts)).model, bench.job(parts=parts)).model
    return ready, parts


def numbered(bench, name, ready, numerics, parts):
    if numerics == "fp32":
        return ready
    options = {"method": "cast"}
    if numerics == "int8":
        # TensorRT-RTX fails on activations that are quantized between digit-lines' transposes (decision 0026).
        options = {"method": "static", "operators": "weighted" if name == "digit-lines" else "all", "samples": 16}
    return Quantize(numerics=numerics, **options).run(ready, bench.job(target=A100, parts=parts)).model


@pytest.mark.parametrize("name", sorted(path.parent.name for path in SAMPLES.glob("*/model.py")))
def test_every_sample_model_becomes_engines(name, tmp_path):
    bench = Bench(tmp_path)
    ready, parts = exported(bench, name, tmp_path / "folder")
    stage = BuildEngine(library="tensorrt_rtx", dims={"length": LENGTHS})
    found = {}
    for numerics in ("fp32", "fp16", "int8"):
        model = numbered(bench, name, ready, numerics, parts)
        builds = [build_of(stage.run(model, bench.job(target=target)).model) for target in TARGETS]
        assert [build.compute_capability for build in builds] == ["8.0", "8.6", "12.0"]
        found[numerics] = builds[0]
        # Whatever the card, the parser makes the same network.
        assert all((each.layers, each.compute) == (builds[0].layers, builds[0].compute) for each in builds)
    multiplying = sum(found["fp32"].compute.values())
    assert found["fp32"].compute == {"FLOAT": multiplying}
    assert found["fp16"].compute == {"HALF": multiplying}
    assert found["fp32"].quantized == found["fp16"].quantized == 0
    assert found["int8"].quantized == QUANTIZED.get(name, multiplying)
    assert found["int8"].layers["DEQUANTIZE"] >= 2 * found["int8"].quantized
    if name in LARGE:
        size = {numerics: build.plan_bytes for numerics, build in found.items()}
        assert size["fp16"] < 0.6 * size["fp32"]
        assert size["int8"] < 0.8 * size["fp32" if name in KERNELS else "fp16"]
