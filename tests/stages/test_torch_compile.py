"""torch.compile runs the user's module: what it compiled is kept in mlpack's cache, graph breaks are gone around."""

import os

import numpy as np
import pytest
from doors import answers, relative, rows_for

from mlpack.backends import BACKENDS
from mlpack.core.backend_options import BackendOptions
from mlpack.core.machine import cpp_compiler
from mlpack.core.settings import COMPILED
from mlpack.core.targets import this_machine

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


@pytest.mark.slow
@needs_compiler
def test_a_graph_break_is_gone_around(kept, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    model = kept.factory("branching")
    with BACKEND.open(model, HERE, BackendOptions(threads=1)) as runner:
        for sign in (1, -1):
            rows = {"x": np.full((2, 4), sign, np.float32)}
            assert relative(answers(model, rows, "torch")["output"], runner(rows)["output"]) < 1e-5


@pytest.mark.slow
@needs_compiler
def test_it_compiles_in_half_precision(kept, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    model, rows = kept.factory("mlp"), rows_for("mlp", 3)
    with BACKEND.open(model, HERE, BackendOptions(threads=1, precision="bfloat16")) as runner:
        assert 1e-6 < relative(answers(model, rows, "torch")["output"], runner(rows)["output"]) < 5e-2
