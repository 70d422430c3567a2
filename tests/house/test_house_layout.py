"""The house rules that a tool can check: docstrings, names, sizes, exceptions, imports, and what files may say."""

from __future__ import annotations

import ast
import json
import subprocess
import sys

import pytest
from repository import PACKAGE, ROOT, kept_files, modules, shown, sources

from mlpack.core.stage import Stage
from mlpack.stages import STAGES

FORBIDDEN_NAMES = {"utils", "helpers", "common", "base", "misc", "manager", "handler"}
MOST_LINES = 330
# file: why it is one file all the same
LONG = {}
HEAVY = (
    "torch",
    "onnx",
    "onnxruntime",
    "openvino",
    "scipy",
    "transformers",
    "onnxsim",
    "onnxscript",
    "fastapi",
    "ai_edge_litert",
)
# Modules whose whole purpose is one library: they are loaded by name when that library is wanted.
NEED_A_LIBRARY = {
    "mlpack.backends.aotinductor": "torch",
    "mlpack.backends.litert": "ai_edge_litert",
    "mlpack.backends.onnxruntime": "onnxruntime",
    "mlpack.backends.onnxruntime_pieces": "onnx",
    "mlpack.backends.openvino": "openvino",
    "mlpack.backends.tensorrt": "torch",
    "mlpack.backends.torch": "torch",
    "mlpack.backends.torch_changed": "torch",
    "mlpack.backends.torch_hf": "torch",
    "mlpack.backends.torch_hf_on_disk": "torch",
    "mlpack.backends.torch_loader": "torch",
    "mlpack.backends.torch_modes": "torch",
    "mlpack.backends.torch_modules": "torch",
    "mlpack.backends.torch_compile": "torch",
    "mlpack.backends.torch_cuda_graph": "torch",
    "mlpack.backends.torch_device": "torch",
    "mlpack.backends.torch_tensorrt": "torch",
    "mlpack.backends.torch_probe": "torch",
    "mlpack.backends.torch_runner": "torch",
    "mlpack.backends.torch_surgery": "torch",
    "mlpack.backends.torchscript": "torch",
    "mlpack.core.external_data": "onnx",
    "mlpack.measure.graph_cost": "onnx",
    "mlpack.measure.graph_shapes": "onnx",
    "mlpack.pruning.choosing": "torch",
    "mlpack.pruning.depth": "torch",
    "mlpack.pruning.fisher": "torch",
    "mlpack.pruning.flops": "torch",
    "mlpack.pruning.groups": "torch",
    "mlpack.pruning.masks": "torch",
    "mlpack.pruning.running": "torch",
    "mlpack.quantization.beside": "onnx",
    "mlpack.quantization.bias": "onnx",
    "mlpack.quantization.calibrate": "onnx",
    "mlpack.quantization.coverage": "onnx",
    "mlpack.quantization.equalize": "onnx",
    "mlpack.quantization.float8": "onnx",
    "mlpack.quantization.gptq": "onnx",
    "mlpack.quantization.layer_errors": "onnx",
    "mlpack.quantization.layer_operators": "torch",
    "mlpack.quantization.lookups": "onnx",
    "mlpack.quantization.operators": "torch",
    "mlpack.quantization.newer_opset": "onnx",
    "mlpack.quantization.placement": "onnx",
    "mlpack.quantization.qdq_graph": "onnx",
    "mlpack.quantization.ranges": "onnx",
    "mlpack.quantization.rounding": "onnx",
    "mlpack.quantization.sensitivity": "onnx",
    "mlpack.quantization.shown": "onnx",
    "mlpack.quantization.smooth": "onnx",
    "mlpack.quantization.straight_through": "torch",
    "mlpack.quantization.stream": "onnx",
    "mlpack.quantization.switched": "onnx",
    "mlpack.quantization.trainable": "onnx",
    "mlpack.quantization.weight_only": "onnx",
    "mlpack.stages.distill_hidden": "torch",
    "mlpack.stages.distill_objective": "torch",
    "mlpack.stages.distill_student": "torch",
    "mlpack.stages.export_recurrent": "torch",
    "mlpack.stages.prune_latency": "torch",
    "mlpack.stages.prune_module": "torch",
    "mlpack.stages.prune_rows": "torch",
    "mlpack.stages.quantize_int4": "onnx",
    "mlpack.stages.quantize_int8": "onnx",
    "mlpack.stages.quantize_train": "onnx",
    "mlpack.stages.simplify_fusions": "onnx",
    "mlpack.stages.torch_program": "torch",
    "mlpack.training.checkpoint": "torch",
    "mlpack.training.losses": "torch",
    "mlpack.training.loop": "torch",
}
# These are copied into packages: they run beside a server's libraries, without mlpack.
COPIED = "mlpack.runtimes.templates."
# Split, so that this file does not find itself.
UNWANTED = [
    "/wo" + "rk/", "/ro" + "ot/", "/opt/wh" + "eels", "/ho" + "me/",
    "pypi" + ".org", "python" + "hosted", "registry.npm" + "js", "download.pyt" + "orch", "--index" + "-url",
    "proxy.go" + "lang", "issues" + " show",
]  # fmt: skip

BARE = """
import importlib, json, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HEAVY:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

HEAVY = set(sys.argv[1].split(","))
sys.meta_path.insert(0, Absent())
failed = {}
for name in sys.argv[2:]:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        failed[name] = error.name.partition(".")[0]
print(json.dumps(failed))
"""


def test_every_module_imports_in_a_bare_environment():
    mine = [name for name in modules() if not name.startswith(COPIED)]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", BARE, ",".join(HEAVY), *mine],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == NEED_A_LIBRARY


@pytest.mark.parametrize("path", sources(), ids=shown)
def test_the_first_line_says_what_the_module_is_for(path):
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text)), "no docstring"
    assert text.startswith('"""'), "the docstring is not the first line"
    assert text.splitlines()[0] != '"""', "its first line is empty"


def test_no_file_has_a_name_that_says_nothing():
    named = {path for path in kept_files() if path.suffix == ".py" and path.stem.strip("_") in FORBIDDEN_NAMES}
    folders = {path for path in kept_files() if FORBIDDEN_NAMES & set(path.relative_to(ROOT).parts[:-1])}
    assert named | folders == set()


def test_files_are_short():
    lines = {shown(path): len(path.read_text(encoding="utf-8").splitlines()) for path in sources()}
    long = {path for path, count in lines.items() if count > MOST_LINES}
    assert long == set(LONG), {path: lines[path] for path in long}


def test_any_exception_is_caught_in_one_place_only():
    places = {
        shown(path)
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ExceptHandler) and "Exception" in _caught(node)
    }
    # What a user's function or a tokenizer raises is translated at the pipeline's border, which servers share.
    assert places == {"mlpack/cli/app.py", "mlpack/pipeline/python.py", "mlpack/pipeline/text.py"}


def _caught(handler):
    if handler.type is None:
        return {"Exception"}
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return {each.id for each in caught if isinstance(each, ast.Name)}


@pytest.mark.parametrize("name", STAGES.names())
def test_a_stage_describes_itself(name):
    stage = STAGES[name]
    assert issubclass(stage, Stage)
    assert stage.name == name
    assert stage.__doc__
    assert stage.__doc__ != Stage.__doc__
    for field, described in stage.model_fields.items():
        assert described.annotation is not None, field
        assert described.description, f"{name}.{field} has no description"


def test_every_stage_lies_in_a_file_of_its_name():
    assert {name: STAGES[name].__module__ for name in STAGES.names()} == {
        name: f"mlpack.stages.{name}" for name in STAGES.names()
    }


def test_no_file_names_a_registry_or_a_path_of_one_machine():
    found = []
    for path in kept_files():
        raw = path.read_bytes()
        if b"\0" in raw[:8192]:
            continue
        text = raw.decode("utf-8", errors="replace")
        found += [(shown(path), word) for word in UNWANTED if word in text]
    assert found == []


def test_the_package_holds_its_catalogue_and_templates():
    kept = {shown(path) for path in kept_files()}
    assert {"mlpack/core/catalogue/cpu.yaml", "mlpack/core/catalogue/nvidia.yaml", "mlpack/py.typed"} <= kept
    assert any(path.startswith("mlpack/runtimes/templates/") for path in kept)
    assert PACKAGE.is_dir()
