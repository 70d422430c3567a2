"""torch.compile runs the user's module: what it compiled is kept in mlpack's cache, and graph breaks are told."""

import os

import numpy as np
import pytest
from doors import answers, relative, rows_for

from mlpack.backends import BACKENDS
from mlpack.core.backend_options import BackendOptions
from mlpack.core.machine import cpp_compiler
from mlpack.core.settings import COMPILED
from mlpack.core.targets import this_machine
from mlpack.errors import MissingHardware, StageFailed

HERE = this_machine()
BACKEND = BACKENDS["torch_compile"]
needs_compiler = pytest.mark.skipif(cpp_compiler() is None, reason="there is no C++ compiler")


@pytest.mark.slow
@needs_compiler
def test_it_answers_as_the_module_does_and_keeps_what_it_compiled(kept, tmp_path, monkeypatch):
    monkeypatch.setenv("MLPACK_CACHE", str(tmp_path))
    # Set by open(), for the rest of the process.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    model = kept.factory("mlp")
    with BACKEND.open(model, HERE, BackendOptions(threads=1)) as runner:
        for count in (1, 2, 7):
            rows = rows_for("mlp", count, seed=count)
            assert relative(answers(model, rows, "torch")["output"], runner(rows)["output"]) < 1e-5
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / COMPILED)
    assert list((tmp_path / COMPILED).rglob("*.cpp"))


@needs_compiler
def test_a_graph_break_is_a_failed_stage(kept, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    with (
        BACKEND.open(kept.factory("branching"), HERE, BackendOptions(threads=1)) as runner,
        pytest.raises(StageFailed, match=r"torch.compile refuses this model on x \[2, 4\]") as caught,
    ):
        runner({"x": np.ones((2, 4), np.float32)})
    assert "\n" not in caught.value.message
    assert "--backend torch" in caught.value.hint


def test_what_it_cannot_run_is_refused(kept):
    model = kept.factory("mlp")
    narrow = BackendOptions(threads=1, precision="bfloat16")
    assert "precision" in BACKEND.refusal(model, HERE, narrow)
    if cpp_compiler() is not None:
        with pytest.raises(MissingHardware), BACKEND.open(model, HERE, narrow):
            pass
