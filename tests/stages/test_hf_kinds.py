"""Hugging Face models of every kind: loaded, exported, simplified, run by two runtimes, as transformers answers."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from doors import A100, answers, relative

from mlpack.errors import DataError
from mlpack.stages.export import Export
from mlpack.stages.quantize import Quantize
from mlpack.stages.simplify import Simplify

# Test folders are no packages.
sys.path.insert(0, str(Path(__file__).parent.parent / "sources"))

import tiny_hf

PIXELS = ("batch", 3, 224, 224)
# The outputs of each kind, with their dims.
OUTPUTS = {
    "bert": {"logits": ("batch", 3)},
    "distilbert": {"logits": ("batch", 3)},
    "roberta": {"logits": ("batch", 3)},
    "tagger": {"logits": ("batch", "length", 3)},
    "distilbert_tagger": {"logits": ("batch", "length", 3)},
    "answers": {"start_logits": ("batch", "length"), "end_logits": ("batch", "length")},
    "roberta_answers": {"start_logits": ("batch", "length"), "end_logits": ("batch", "length")},
    "encoder": {"last_hidden_state": ("batch", "length", 32), "pooler_output": ("batch", 32)},
    "distilbert_encoder": {"last_hidden_state": ("batch", "length", 32)},
    "vit": {"logits": ("batch", 3)},
    "resnet": {"logits": ("batch", 3)},
}


def dims(value):
    return tuple(dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim)


@pytest.mark.parametrize("kind", tiny_hf.KINDS)
def test_a_folder_of_this_kind_answers_in_every_runtime_as_it_does_in_transformers(kind, bench, tmp_path):
    own = tiny_hf.make(kind)
    own.save_pretrained(tmp_path / kind)
    data = bench.data(**tiny_hf.rows(kind, 6))
    loaded = bench.load(tmp_path / kind, data=data)
    assert {spec.name: spec.dims for spec in loaded.outputs} == OUTPUTS[kind]
    exported = Export().run(loaded, bench.job(parts={"calibration": data})).model
    ready = Simplify().run(exported, bench.job(parts={"calibration": data})).model
    graph = onnx.load(ready.entry_path).graph
    assert {value.name: dims(value) for value in graph.output} == OUTPUTS[kind]
    assert {value.name: dims(value) for value in graph.input} == {spec.name: spec.dims for spec in loaded.inputs}
    if kind not in {"vit", "resnet"}:
        assert {spec.dims for spec in loaded.inputs} == {("batch", "length")}
    for count, length in ((1, 5), (4, 12), (3, 40)):
        given = tiny_hf.rows(kind, count, length, seed=count)
        true = tiny_hf.answers(own, given)
        for model, backend in ((loaded, "torch"), (ready, "onnxruntime"), (ready, "openvino")):
            got = answers(model, given, backend)
            assert set(got) == set(true)
            for name, array in true.items():
                assert relative(array, got[name]) < 1e-4, (backend, name, count, length)


def test_a_resnet_takes_the_size_that_its_processor_gives_and_else_that_of_the_data(bench, tmp_path):
    tiny_hf.make("resnet").save_pretrained(tmp_path / "resnet")
    assert bench.load(tmp_path / "resnet").inputs[0].dims == PIXELS
    processor = tmp_path / "resnet" / "preprocessor_config.json"
    processor.write_text('{"feature_extractor_type": "ConvNextFeatureExtractor", "size": 48, "crop_pct": 0.875}')
    assert bench.load(tmp_path / "resnet").inputs[0].dims == ("batch", 3, 48, 48)
    assert bench.load(tmp_path / "resnet", data=bench.data(**tiny_hf.rows("resnet", 4))).inputs[0].dims[2:] == (32, 32)


@pytest.mark.parametrize(("kind", "most"), [("bert", 40), ("distilbert", 40), ("roberta", 40)])
def test_rows_that_are_longer_than_the_models_positions_are_refused_in_one_line(kind, most, bench, tmp_path):
    from mlpack.backends import BACKENDS
    from mlpack.core.backend_options import BackendOptions
    from mlpack.stages.check_accuracy import run_over

    tiny_hf.make(kind).save_pretrained(tmp_path / kind)
    fits, too_long = (bench.data(**tiny_hf.rows(kind, 4, length)) for length in (most, most + 1))
    said = f"'input_ids' has a length of {most + 1}, but this model takes {most} at most"
    with pytest.raises(DataError) as raised:
        bench.load(tmp_path / kind, data=too_long)
    assert raised.value.message == said
    assert raised.value.hint == f"cut what is too long: input_ids = input_ids[:, :{most}]"
    model = Export().run(bench.load(tmp_path / kind, data=fits), bench.job()).model
    options = BackendOptions(threads=1)
    with BACKENDS["openvino"].open(model, bench.job().target, options) as runner:
        ((batch, outputs),) = run_over(model, runner, fits, 4)
        assert len(batch) == 4
        assert np.isfinite(outputs["logits"]).all()
        with pytest.raises(DataError, match=said):
            next(iter(run_over(model, runner, too_long, 4)))


@pytest.mark.parametrize("kind", ["bert", "roberta_answers"])
def test_a_mask_of_minus_infinity_is_no_weight_that_fp16_cannot_hold(kind, bench, tmp_path):
    """transformers masks with float32's lowest number, which the graph has as a constant."""
    own = tiny_hf.make(kind)
    own.save_pretrained(tmp_path / kind)
    ready = Simplify().run(Export().run(bench.load(tmp_path / kind), bench.job()).model, bench.job()).model
    half = Quantize(numerics="fp16", method="cast").run(ready, bench.job(target=A100)).model
    given = tiny_hf.rows(kind, 5)
    for name, array in tiny_hf.answers(own, given).items():
        got = answers(half, given, graph_optimizations="off")[name]
        assert np.isfinite(got).all()
        assert relative(array, got) < 5e-3
