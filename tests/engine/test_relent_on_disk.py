"""Milder forms of what was made of weights that stay on the disk: none is looked for, and that is said."""

import onnx
import pytest

from mlpack.core.model import Model, Quantization
from mlpack.core.report import Report
from mlpack.core.targets import load_target
from mlpack.engine.cache import Done
from mlpack.engine.candidates import Candidate
from mlpack.engine.context import Context
from mlpack.engine.relent import can_relent, milder_forms
from mlpack.stages.quantize import Quantize


class Heard:
    """A reporter that remembers what it is warned of."""

    def __init__(self):
        self.warnings = []

    def say(self, text, done=None, total=None):
        del done, total
        raise AssertionError(f"nothing is to be run: {text}")

    def stage_done(self, line):
        raise AssertionError(f"nothing is to be run: {line}")

    def warn(self, text):
        self.warnings.append(text)


def test_nothing_runs_the_float_weights(tmp_path):
    onnx.save(onnx.ModelProto(), tmp_path / "model.onnx")
    before = Model(path=tmp_path, entry="model.onnx", format="onnx", on_disk=True, inputs=(), outputs=())
    stage = Quantize(numerics="int4", method="rtn", block=128)
    made = Quantization(rules="", method="rtn", details=stage.model_dump(mode="json"))
    after = before.model_copy(update={"on_disk": False, "numerics": "int4", "quantization": made})
    done = Done(
        stage=stage.name, options=stage.model_dump(mode="json"), key="", ingredients={}, model=after, report=Report(),
        folder=tmp_path, seconds=0, peak_rss_bytes=0, reused=False,
    )  # fmt: skip
    candidate = Candidate(after, (done,), given=before)
    assert can_relent(candidate)
    heard = Heard()
    context = Context(tmp_path, load_target("zen5"), threads=1, seed=0, reporter=heard, baseline=before)

    def judge(form):
        pytest.fail(f"{form.label} is judged")

    assert list(milder_forms(candidate, lambda _: 100.0, judge, context)) == []
    (warning,) = heard.warnings
    assert "no milder form of int4 rtn" in warning
    assert "quantize.wide=[NODE]" in warning
