"""The first start of a Triton package for a card: engines by the real TensorRT-RTX, kept, built again, or done without.

Stand-ins: `nvidia-smi`, whose card is not here; Python's `tensorrt` and `trtexec`, which drive TensorRT-RTX; and the
server, which shows the repository that it was given.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_artifacts import make

from mlpack.core.runtime import PackageOptions
from mlpack.core.targets import load_target
from mlpack.errors import UsageError
from mlpack.runtimes import RUNTIMES
from mlpack.runtimes.templates.triton import start

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx_bindings") is None, reason="TensorRT-RTX has no wheel for this platform"
)
A100 = {"target": load_target("a100").model_dump(mode="json"), "latency": []}
# The API is TensorRT 11's; without a card TensorRT-RTX builds for all cards from Ampere on.
TENSORRT = """
import os

import mlpack.backends.tensorrt_library as libraries

library = libraries.load("tensorrt_rtx")
globals().update({name: getattr(library.module, name) for name in dir(library.module) if name[:2] != "__"})
__version__ = os.environ.get("VERSION", library.version)
"""
TRTEXEC = f"""#!{sys.executable}
import json, os, sys

print("&&&& RUNNING TensorRT.trtexec [TensorRT v110400] [b1] # trtexec")
if sys.argv[1:] == ["--help"]:
    sys.exit(0)
flags = dict(word.partition("=")[::2] for word in sys.argv[1:])
known = {{"--onnx", "--saveEngine", "--noTF32", "--skipInference", "--minShapes", "--optShapes", "--maxShapes"}}
assert set(flags) <= known, flags
sys.path.insert(0, os.environ["STANDINS"])
import tensorrt
logger = tensorrt.Logger(tensorrt.Logger.WARNING)
builder = tensorrt.Builder(logger)
network = builder.create_network(0)
assert tensorrt.OnnxParser(network, logger).parse_from_file(flags["--onnx"])
config = builder.create_builder_config()
profile = builder.create_optimization_profile()
given = (flags[flag].split(",") for flag in ("--minShapes", "--optShapes", "--maxShapes"))
shapes = [dict(each.split(":") for each in shape) for shape in given]
for name in shapes[0]:
    profile.set_shape(name, *(tuple(map(int, each[name].split("x"))) for each in shapes))
config.add_optimization_profile(profile)
plan = builder.build_serialized_network(network, config)
open(flags["--saveEngine"], "wb").write(plan)
"""
# As tritonserver is given it: the last word is the repository.
SERVER = "import sys; print(sys.argv[-1].removeprefix('--model-repository='))"
BROKEN = "raise ImportError('no tensorrt in this image')\n"


class Container:
    """A package's image: its repository, its first start, a volume and a driver that shows one card."""

    def __init__(self, place: Path, **changes: object) -> None:
        self.place = place
        stored = make(place / "store", **{**A100, **changes})
        self.layout = RUNTIMES["triton"].layout(stored, PackageOptions(max_batch=4))
        for relative, content in self.layout.items():
            file = place / relative
            file.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Path):
                shutil.copyfile(content, file)
            else:
                file.write_bytes(content.encode() if isinstance(content, str) else content)
        self.standins = place / "standins"
        self.standins.mkdir()
        (place / "bin").mkdir()
        (self.standins / "tensorrt.py").write_text(TENSORRT)
        self.card("NVIDIA A100-SXM4-80GB, 8.0")

    def card(self, line: str) -> None:
        """What the driver shows."""
        self.program("nvidia-smi", f"#!/bin/sh\necho '{line}'\n")

    def program(self, name: str, text: str) -> None:
        path = self.place / "bin" / name
        path.write_text(text)
        path.chmod(0o755)

    def begin(self, **environment: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(self.place / "engine" / "start.py"), sys.executable, "-c", SERVER]
        return subprocess.Popen(
            command,
            env={
                "PATH": f"{self.place / 'bin'}:{os.environ['PATH']}",
                "PYTHONPATH": f"{self.standins}:{os.environ.get('PYTHONPATH', '')}",
                "STANDINS": str(self.place / "real"),
                "MODELS": str(self.place / "model_repository"),
                "ENGINES": str(self.place / "volume"),
                "TMPDIR": str(self.place),
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def start(self, **environment: str) -> tuple[int, str, str]:
        """Exit code, the repository that the server got, and what was said."""
        return ended(self.begin(**environment))

    def engines(self) -> list[Path]:
        return sorted((self.place / "volume").glob("*/model.plan"))


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=600)
    return process.returncode, out.strip(), err


@pytest.fixture
def container(tmp_path):
    return Container(tmp_path)


def test_the_first_start_builds_and_the_next_one_keeps(container):
    code, served, said = container.start()
    assert code == 0, said
    assert "building the engine for NVIDIA A100-SXM4-80GB (compute capability 8.0), TensorRT 1." in said
    (plan,) = container.engines()
    root = Path(served) / "tiny-mlp"
    assert (root / "1" / "model.plan").resolve() == plan
    assert plan.stat().st_size > 1000
    assert sorted(path.name for path in (root / "1").iterdir()) == ["model.plan"], "the graph is not served beside it"
    assert (root / "config.pbtxt").read_text() == container.layout["engine/config.pbtxt"]
    assert {path.name for path in (root / "warmup").iterdir()} == {"input-0.raw"}
    written = plan.stat().st_mtime_ns
    code, served, said = container.start()
    assert code == 0
    assert "the kept engine for" in said
    assert "building" not in said
    assert plan.stat().st_mtime_ns == written
    assert (Path(served) / "tiny-mlp" / "1" / "model.plan").resolve() == plan


def test_another_card_another_tensorrt_or_another_graph_has_an_engine_of_its_own(container):
    container.start()
    container.card("NVIDIA A10, 8.6")
    assert "building the engine for NVIDIA A10 (compute capability 8.6)" in container.start()[2]
    assert "building" in container.start(VERSION="11.5.0")[2]
    graph = container.place / "model_repository" / "tiny-mlp" / "1" / "model.onnx"
    graph.write_bytes(graph.read_bytes() + b"\x12\x00")
    assert "building" in container.start()[2]
    assert len(container.engines()) == 4
    # Back on the first card with the first graph nothing is built.
    graph.write_bytes(graph.read_bytes()[:-2])
    container.card("NVIDIA A100-SXM4-80GB, 8.0")
    assert "the kept engine for" in container.start()[2]


@pytest.mark.parametrize("damage", ["cut", "no record", "other facts"])
def test_an_engine_that_is_damaged_is_built_again(container, damage):
    container.start()
    (plan,) = container.engines()
    whole, record = plan.read_bytes(), plan.with_name("engine.json")
    if damage == "cut":
        plan.write_bytes(whole[: len(whole) // 2])
    elif damage == "no record":
        record.unlink()
    else:
        record.write_text(json.dumps({**json.loads(record.read_text()), "facts": {}}))
    code, _, said = container.start()
    assert code == 0
    assert "is damaged: it is built again" in said
    assert len(container.engines()) == 1
    assert len(plan.read_bytes()) > len(whole) // 2
    assert "the kept engine for" in container.start()[2]


def test_what_a_killed_build_left_is_swept(container):
    code, _, _ = container.start()
    (plan,) = container.engines()
    shutil.rmtree(plan.parent)
    left = plan.parent.with_suffix(".part")
    left.mkdir()
    (left / "model.plan").write_bytes(b"half")
    code, _, said = container.start()
    assert (code, left.exists()) == (0, False), said
    assert plan.stat().st_size > 1000


def test_of_two_containers_at_once_one_builds(container):
    first, second = (ended(each) for each in [container.begin(), container.begin()])
    assert (first[0], second[0]) == (0, 0), first[2] + second[2]
    said = first[2] + second[2]
    assert said.count("building the engine for") == 1
    assert said.count("the kept engine for") == 1
    assert len(container.engines()) == 1


def test_without_an_engine_it_ends_and_falls_back_only_where_that_is_said(container):
    container.card("")
    code, served, said = container.start()
    assert (code, served) == (1, "")
    assert "no engine: nvidia-smi shows no card" in said
    assert "FALLBACK=onnxruntime would serve the graph" in said
    code, served, said = container.start(FALLBACK="onnxruntime")
    assert (code, served) == (0, str(container.place / "model_repository"))
    assert "ONNX Runtime serves the graph" in said
    code, _, said = container.start(FALLBACK="cpu")
    assert code == 2
    assert "FALLBACK=cpu is none" in said


def test_a_graph_that_tensorrt_refuses_ends_it_and_leaves_nothing(container):
    (container.place / "model_repository" / "tiny-mlp" / "1" / "model.onnx").write_bytes(b"nonsense")
    code, _, said = container.start()
    assert code == 1
    assert "no engine: the builder ended with 1" in said
    assert list((container.place / "volume").glob("*.part")) == []
    assert container.engines() == []
    assert container.start(FALLBACK="onnxruntime")[0] == 0


def test_a_builder_that_crashes_ends_it_no_differently(container):
    (container.standins / "tensorrt.py").write_text(
        f"{TENSORRT}\nclass OnnxParser:\n    def __init__(self, *_):\n        os.kill(os.getpid(), 11)\n"
    )
    code, _, said = container.start()
    assert code == 1
    assert "the builder ended with -11" in said


def test_a_container_that_is_stopped_while_it_builds_ends_at_once_and_leaves_no_engine(container):
    marker = container.place / "building"
    (container.standins / "tensorrt.py").write_text(
        f"{TENSORRT}\nimport pathlib, time\ndef Builder(*_):\n"
        f"    pathlib.Path({str(marker)!r}).write_text(str(os.getpid()))\n    time.sleep(600)\n"
    )
    process = container.begin()
    while not (marker.exists() and marker.read_text()):
        assert process.poll() is None
        time.sleep(0.05)
    process.terminate()
    assert ended(process)[0] == 143
    with pytest.raises(ProcessLookupError):
        os.kill(int(marker.read_text()), 0)
    (container.standins / "tensorrt.py").write_text(TENSORRT)
    assert container.engines() == []
    assert container.start()[0] == 0


@pytest.mark.skipif(not Path("/sys/kernel").exists(), reason="needs a place that not even root can write")
def test_a_volume_that_cannot_be_written_has_no_engine(container):
    code, _, said = container.start(ENGINES="/sys/engines")
    assert code == 1
    assert "start.py: no engine: [Errno" in said
    assert "Traceback" not in said


def test_cards_of_several_kinds_need_a_container_each(container):
    container.program("nvidia-smi", "#!/bin/sh\necho 'NVIDIA A10, 8.6'\necho 'NVIDIA L4, 8.9'\n")
    code, _, said = container.start()
    assert code == 1
    assert "cards of 2 kinds (NVIDIA A10, 8.6; NVIDIA L4, 8.9)" in said
    container.program("nvidia-smi", "#!/bin/sh\necho 'NVIDIA A10, 8.6'\necho 'NVIDIA A10, 8.6'\n")
    assert container.start()[0] == 0


def test_trtexec_builds_where_python_has_no_tensorrt(container):
    shutil.copytree(container.standins, container.place / "real")
    (container.standins / "tensorrt.py").write_text(BROKEN)
    code, _, said = container.start()
    assert code == 1
    assert "neither Python's tensorrt nor trtexec" in said
    container.program("trtexec", TRTEXEC)
    code, _, said = container.start()
    assert code == 0, said
    assert "TensorRT 110400" in said
    (plan,) = container.engines()
    assert plan.stat().st_size > 1000


def test_a_free_dim_without_a_largest_size_has_no_engine(tmp_path):
    container = Container(tmp_path, kind="text")
    assert json.loads(container.layout["engine/recipe.json"])["profile"] is None
    assert "None can be built: input ids=int64:batch,tokens" in container.layout["README.md"]
    code, _, said = container.start()
    assert code == 1
    assert "has a free dim 'tokens' of which no largest size is known" in said
    known = Container(tmp_path / "known", kind="text", model__largest={"tokens": 7})
    assert json.loads(known.layout["engine/recipe.json"])["profile"]["ids"] == [[1, 1], [4, 7], [4, 7]]
    assert known.start()[0] == 0


def test_shapes_of_fixed_inputs_are_not_told_to_trtexec():
    command = start.Builder("trtexec", "110400").command
    profile = {"a": [[1, 8], [4, 8], [4, 8]], "b": [[3, 8]] * 3}
    flags = command(Path("g.onnx"), Path("p.plan"), profile)
    assert "--maxShapes=a:4x8" in flags
    assert "--minShapes=a:1x8" in flags
    assert not any("Shapes" in flag for flag in command(Path("g.onnx"), Path("p.plan"), {"b": profile["b"]}))


def test_a_fallback_is_for_artifacts_of_cards(tmp_path):
    stored = make(tmp_path / "gpu", **A100)
    layout = RUNTIMES["triton"].layout(stored, PackageOptions(engine_fallback="onnxruntime"))
    assert "ENV ORT_DISABLE_TELEMETRY=1 MODELS=/models FALLBACK=onnxruntime\n" in layout["Dockerfile"]
    assert "FALLBACK" not in RUNTIMES["triton"].layout(stored, PackageOptions())["Dockerfile"]
    here = make(tmp_path / "cpu")
    for runtime in ("triton", "fastapi"):
        with pytest.raises(UsageError, match="--engine-fallback is for engines"):
            RUNTIMES[runtime].layout(here, PackageOptions(engine_fallback="onnxruntime"))
