"""Core ML packages: what coremltools translates, under the model's own names; what it lacks is named."""

import importlib.util
import json
import sys

import pytest
from doors import rows_for

from mlpack.errors import MissingLibrary, StageFailed
from mlpack.stages.convert_coreml import ConvertCoreml

needs_converter = pytest.mark.skipif(
    importlib.util.find_spec("coremltools") is None, reason="coremltools is not installed: mlpack-toolchain[coreml]"
)


def converted(bench, model, name, **options):
    parts = {"calibration": bench.data(**rows_for(name, 8))}
    return ConvertCoreml(**options).run(model, bench.job(parts=parts))


@pytest.mark.slow
@needs_converter
@pytest.mark.parametrize("name", ["conv_net", "transformer", "siamese", "tagger"])
def test_a_package_has_the_models_names_and_a_free_batch(bench, kept, name):
    model = kept.factory(name)
    done = converted(bench, model, name)
    made = done.model
    assert (made.format, made.entry, made.numerics) == ("coreml", "model.mlpackage", "fp32")
    assert "not known here" in done.report.metrics["not_run_here"]
    import coremltools

    description = coremltools.utils.load_spec(str(made.entry_path)).description
    assert [each.name for each in description.input] == [spec.name for spec in model.inputs]
    assert [each.name for each in description.output] == [spec.name for spec in model.outputs]
    for feature, spec in zip(description.input, model.inputs, strict=True):
        batch, *rest = feature.type.multiArrayType.shapeRange.sizeRanges
        assert (batch.lowerBound, batch.upperBound) == (1, 64)
        assert [(each.lowerBound, each.upperBound) for each in rest] == [(dim, dim) for dim in spec.dims[1:]]
    narrowed = {"int64": "int32"}
    assert [spec.dtype for spec in made.inputs] == [narrowed.get(spec.dtype, spec.dtype) for spec in model.inputs]
    assert [spec.dims for spec in made.inputs] == [spec.dims for spec in model.inputs]
    manifest = json.loads((made.entry_path / "Manifest.json").read_text())
    assert manifest["itemInfoEntries"]
    weights = sum(path.stat().st_size for path in made.entry_path.rglob("weight.bin"))
    assert weights > 0 or name == "siamese", "small ones lie in the program itself"


@pytest.mark.slow
@needs_converter
def test_float16_halves_the_weights(bench, kept):
    sizes = {}
    for precision in ("float32", "float16"):
        made = converted(bench, kept.factory("transformer"), "transformer", precision=precision).model
        assert made.numerics == {"float32": "fp32", "float16": "fp16"}[precision]
        sizes[precision] = sum(path.stat().st_size for path in made.entry_path.rglob("weight.bin"))
    assert sizes["float16"] < 0.6 * sizes["float32"]


@pytest.mark.slow
@needs_converter
def test_what_it_has_no_translation_for_is_named(bench, kept, tmp_path):
    lines = (
        "import torch",
        "class Net(torch.nn.Module):",
        "    def forward(self, x):",
        "        return torch.special.i0(x)",
    )
    (tmp_path / "bessel.py").write_text("\n".join((*lines, "def net():", "    return Net()\n")))
    model = bench.load(f"{tmp_path}/bessel.py:net", inputs=("x=float32:batch,8",))
    with pytest.raises(StageFailed, match=r"coremltools .* cannot convert this model: .*i0") as caught:
        converted(bench, model, "mlp")
    assert "\n" not in caught.value.message
    with pytest.raises(StageFailed, match="torch cannot export this model"):
        converted(bench, kept.factory("branching"), "branching")


def test_without_the_library_it_says_what_to_install(bench, kept, monkeypatch):
    monkeypatch.setitem(sys.modules, "coremltools", None)
    with pytest.raises(MissingLibrary, match="needs the library coremltools") as caught:
        converted(bench, kept.factory("mlp"), "mlp")
    assert (caught.value.exit_code, caught.value.hint) == (3, "pip install 'mlpack-toolchain[coreml]'")
