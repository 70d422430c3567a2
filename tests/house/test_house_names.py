"""Core and engine know plug-ins by their doors, never by their names."""

from __future__ import annotations

import ast
import io
import re
import tokenize

import pytest
from repository import PACKAGE, shown, sources

from mlpack.backends import BACKENDS
from mlpack.datasets import DATASETS
from mlpack.runtimes import RUNTIMES
from mlpack.sources import SOURCES
from mlpack.stages import STAGES

TABLES = (STAGES, BACKENDS, RUNTIMES, DATASETS, SOURCES)
NAMES = {name for table in TABLES for name in table.names()}
CLASSES = {STAGES[name].__name__ for name in STAGES.names()}
FOLDERS = "stages|backends|runtimes|datasets|sources"
# Words of Python and of recipes that plug-ins happen to be called by; each with why it may stand there.
ALLOWED = {
    ("mlpack/core/arrays.py", "load"): "numpy's own verb",
    ("mlpack/core/artifact.py", "golden"): "a field of artifact.json",
    ("mlpack/core/filesystem.py", "compile"): "re.compile",
    ("mlpack/core/runlog.py", "compile"): "re.compile",
    ("mlpack/core/user_code.py", "compile"): "re.compile and Python's compile()",
    ("mlpack/core/target_file.py", "compile"): "re.compile",
    ("mlpack/engine/explain.py", "compile"): "re.compile",
    ("mlpack/engine/forkserver.py", "random"): "Python's own module",
    ("mlpack/core/runtime.py", "onnxruntime"): "who serves a graph where no engine can be built: a word of an option",
    ("mlpack/core/recipe.py", "golden"): "a role in a recipe, beside accuracy and latency",
    ("mlpack/core/recipe.py", "factory"): "a key of a recipe's source",
    ("mlpack/core/settings.py", "factory"): "a key of mlpack.toml",
    ("mlpack/core/installation.py", "torch"): "the distribution whose CUDA build doctor asks about",
    ("mlpack/core/weights.py", "torch"): "the library whose tensors they are",
    ("mlpack/core/model.py", "torch"): "a format of model files",
    ("mlpack/core/model.py", "openvino"): "a format of model files",
    ("mlpack/core/model.py", "aotinductor"): "a format of model files",
    ("mlpack/core/model.py", "torchscript"): "a format of model files",
    ("mlpack/core/model.py", "litert"): "a format of model files",
    ("mlpack/core/model.py", "tensorrt"): "a format of model files",
    ("mlpack/engine/validate.py", "torch"): "a format of model files",
    ("mlpack/core/provider.py", "tensorrt"): "what ONNX Runtime computes with on a card",
    **{
        ("mlpack/core/loader.py", kind): "loader.json's own record of what a file was recognised as"
        for kind in (
            "exported_program",
            "torchscript",
            "pickled_module",
            "state_dict",
            "onnx_file",
            "factory",
            "hf_folder",
        )
    },
}


def docstrings(tree):
    scopes = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, scopes) and node.body and isinstance(node.body[0], ast.Expr)
    }


def named(text):
    """Plug-in names in code: whole string literals, import paths inside them, and identifiers."""
    tree = ast.parse(text)
    prose = docstrings(tree)
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            found |= {node.value} & NAMES
            found |= set(re.findall(rf"mlpack\.(?:{FOLDERS})\.(\w+)", node.value)) & NAMES
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NAME:
            found |= {token.string} & (NAMES | CLASSES)
    return found


def in_core_and_engine():
    return {
        (shown(path), word)
        for folder in ("core", "engine")
        for path in sources(PACKAGE / folder)
        for word in named(path.read_text(encoding="utf-8"))
    }


def test_core_and_engine_name_no_plug_in():
    assert sorted(in_core_and_engine() - set(ALLOWED)) == []


def test_no_exception_is_left_over():
    assert sorted(set(ALLOWED) - in_core_and_engine()) == []


@pytest.mark.parametrize(
    ("code", "word"),
    [
        ('step = "quantize"', "quantize"),
        ('module = "mlpack.backends.onnxruntime:BACKEND"', "onnxruntime"),
        ("from mlpack.stages.quantize import Quantize", "Quantize"),
        ("from mlpack.runtimes import triton", "triton"),
    ],
)
def test_a_name_in_code_is_found(code, word):
    assert word in named(code)


def test_prose_is_not_code():
    assert named('"""quantize"""\n# quantize\ndef f():\n    """quantize"""\n    return "may quantize"\n') == set()
