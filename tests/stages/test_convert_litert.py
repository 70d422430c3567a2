"""LiteRT files: converted for one batch size, run by LiteRT's interpreter beside the original."""

import importlib.util
import sys

import numpy as np
import pytest
from doors import relative, rows_for

from mlpack.backends import BACKENDS, runs
from mlpack.core.backend_options import BackendOptions
from mlpack.core.targets import this_machine
from mlpack.errors import MissingHardware, MissingLibrary, StageFailed
from mlpack.stages.convert_litert import ConvertLitert

HERE = this_machine()
needs_converter = pytest.mark.skipif(
    importlib.util.find_spec("litert_torch") is None,
    reason="litert-torch wants an environment of its own: mlpack-toolchain[litert]",
)


def converted(bench, model, name, **options):
    parts = {"calibration": bench.data(**rows_for(name, 7))}
    return ConvertLitert(**options).run(model, bench.job(parts=parts, target=HERE))


@pytest.mark.slow
@needs_converter
@pytest.mark.parametrize(("name", "batch"), [("conv_net", 1), ("transformer", 4), ("siamese", 2), ("tagger", 3)])
def test_a_file_answers_as_the_original_does(bench, kept, name, batch):
    model = kept.factory(name)
    done = converted(bench, model, name, batch=batch)
    made = done.model
    assert (made.format, made.entry, made.backend, made.dynamic_batch) == ("litert", "model.tflite", "litert", False)
    assert done.report.metrics["verified_on"] == "real"
    assert all(gap < 1e-5 for gap in done.report.metrics["differences"].values())
    assert {spec.dims[0] for spec in (*made.inputs, *made.outputs)} == {batch}
    assert "int64" not in {spec.dtype for spec in made.inputs}
    rows = rows_for(name, batch, seed=9)
    with BACKENDS["torch"].open(model, HERE, BackendOptions(threads=1)) as runner:
        expected = runner(rows)
    with BACKENDS["litert"].open(made, HERE, BackendOptions(threads=1)) as runner:
        found = runner(rows)
        assert all(relative(array, found[output]) < 1e-5 for output, array in expected.items())
        with pytest.raises(StageFailed, match="LiteRT refuses this model"):
            runner({key: np.repeat(array, 2, axis=0) for key, array in rows.items()})
    assert BACKENDS["litert"].refusal(made, HERE, BackendOptions(precision="bfloat16")) is not None
    told = BackendOptions(device="cuda")
    with pytest.raises(MissingHardware, match="driven on the CPU"), BACKENDS["litert"].open(made, HERE, told):
        pass


@pytest.mark.slow
@needs_converter
def test_what_cannot_be_converted_or_differs_is_a_failed_stage(bench, kept):
    with pytest.raises(StageFailed, match=r"litert-torch .* cannot convert this model") as caught:
        converted(bench, kept.factory("branching"), "branching")
    assert "\n" not in caught.value.message
    with pytest.raises(StageFailed, match="the LiteRT file differs from the original in output 'output'"):
        converted(bench, kept.factory("conv_net"), "conv_net", tolerance=1e-12)


def test_without_the_library_it_says_what_to_install(bench, kept, monkeypatch):
    monkeypatch.setitem(sys.modules, "litert_torch", None)
    with pytest.raises(MissingLibrary, match="needs the library litert-torch") as caught:
        converted(bench, kept.factory("mlp"), "mlp")
    assert (caught.value.exit_code, caught.value.hint) == (
        3, "in an environment of its own: pip install 'mlpack-toolchain[litert]'",
    )  # fmt: skip
    assert runs("litert") == ("litert",)
