"""Starts Triton on the engine of this card: built at the first start, kept in a volume, built again where it must be.

An engine belongs to one kind of card, one TensorRT and one graph, so it is kept under all of them. Where there is none
and none can be built the container ends, unless FALLBACK=onnxruntime lets ONNX Runtime serve the graph.

    python3 start.py tritonserver …        build what is missing, then become the server
    python3 start.py --build GRAPH PLAN    build by Python's tensorrt: in a process of its own, since it may crash
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).resolve().parent
MODELS = Path(os.environ.get("MODELS", "/models"))
ENGINES = Path(os.environ.get("ENGINES", "/var/cache/tensorrt"))
FALLBACK = "onnxruntime"
PLAN = "model.plan"
RECORD = "engine.json"
_TRTEXEC = "/usr/src/tensorrt/bin/trtexec"
_PIECE = 1 << 20
_BUILD_WORDS = 2
_STOPPED = 128 + signal.SIGTERM


class NoEngineError(Exception):
    """There is no engine for this card, and none can be built; the message says why."""


class Builder(NamedTuple):
    """What builds engines in this image: the command up to the graph, and its version."""

    program: str | None
    version: str

    def command(self, graph: Path, plan: Path, profile: dict[str, list[list[int]]]) -> list[str]:
        """The command that builds this plan. Types come from the graph; TF32, on by default, is not asked for."""
        if self.program is None:
            return [sys.executable, str(Path(__file__).resolve()), "--build", str(graph), str(plan)]
        flags = [f"--onnx={graph}", f"--saveEngine={plan}", "--noTF32", "--skipInference"]
        # It takes shapes of inputs with free dims only.
        free = {name: sizes for name, sizes in profile.items() if sizes[0] != sizes[-1]}
        for flag, at in (("--minShapes", 0), ("--optShapes", 1), ("--maxShapes", 2)):
            shapes = ",".join(f"{name}:{'x'.join(map(str, sizes[at]))}" for name, sizes in free.items())
            flags += [f"{flag}={shapes}"] if shapes else []
        return [self.program, *flags]


def main(words: list[str]) -> NoReturn:
    """Become the server of these words, on the engine of this card."""
    told = os.environ.get("FALLBACK", "")
    if told not in {"", FALLBACK}:
        _say(f"FALLBACK={told} is none: leave it out, or FALLBACK={FALLBACK}")
        sys.exit(2)
    # The first process of a container ends at no signal that it does not take: a stop has to reach it while it builds.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_STOPPED))
    recipe = _recipe()
    try:
        repository = _repository(recipe, _engine(recipe))
    except (NoEngineError, OSError) as error:
        _say(f"no engine: {error}")
        if not told:
            _say(f"FALLBACK={FALLBACK} would serve the graph by ONNX Runtime's TensorRT provider")
            sys.exit(1)
        _say(f"FALLBACK={FALLBACK}: ONNX Runtime serves the graph")
        repository = MODELS
    command = [*words, f"--model-repository={repository}"]
    os.execvp(command[0], command)  # noqa: S606 - the server takes this process's place, and its signals


def build(graph: Path, plan: Path) -> None:
    """Write the plan of this graph by Python's tensorrt.

    Raises:
        NoEngineError: TensorRT cannot read the graph, or cannot build it.
    """
    import tensorrt  # type: ignore[import-not-found] # exists inside the image only

    logger = tensorrt.Logger(tensorrt.Logger.WARNING)
    builder = tensorrt.Builder(logger)
    network = builder.create_network(0)
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        raise NoEngineError("; ".join(str(parser.get_error(at).desc()) for at in range(parser.num_errors)))
    config = builder.create_builder_config()
    config.clear_flag(tensorrt.BuilderFlag.TF32)
    profile = builder.create_optimization_profile()
    for name, sizes in _recipe()["profile"].items():
        profile.set_shape(name, *map(tuple, sizes))
    config.add_optimization_profile(profile)
    made = builder.build_serialized_network(network, config)
    if made is None:
        raise NoEngineError("TensorRT cannot build this network; what it complains of stands above")
    plan.write_bytes(made)


def _engine(recipe: dict[str, Any]) -> Path:
    """The plan for this card, kept or built now; of two containers that start at once one builds, the other waits."""
    if recipe["profile"] is None:
        raise NoEngineError(recipe["lacks"])
    served = MODELS / recipe["model"] / recipe["version"]
    builder = _builder()
    facts = {**_card(), "tensorrt": builder.version, "graph": _digest(served), "profile": recipe["profile"]}
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:20]
    place = ENGINES / key
    ENGINES.mkdir(parents=True, exist_ok=True)
    named = f"{facts['gpu']} (compute capability {facts['compute_capability']}), TensorRT {builder.version}"
    with _alone(ENGINES / f"{key}.lock"):
        if _is_whole(place, facts):
            _say(f"the kept engine for {named}: {place}")
            return place / PLAN
        if place.exists():
            _say(f"{place} is damaged: it is built again")
            shutil.rmtree(place)
        _say(f"building the engine for {named}")
        work = ENGINES / f"{key}.part"
        # Of a container that was killed: nobody else has the lock.
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        plan = work / PLAN
        ended = subprocess.run(builder.command(served / recipe["graph"], plan, recipe["profile"]), check=False)
        if ended.returncode != 0 or not plan.is_file():
            shutil.rmtree(work)
            raise NoEngineError(f"the builder ended with {ended.returncode}; what it complains of stands above")
        (work / RECORD).write_text(json.dumps({"facts": facts, "sha256": _digest(plan)}, indent=1), encoding="utf-8")
        work.rename(place)
        _say(f"built: {place}")
    return place / PLAN


def _builder() -> Builder:
    """Python's tensorrt, else trtexec."""
    try:
        import tensorrt
    except ImportError:
        program = shutil.which("trtexec") or shutil.which(_TRTEXEC)
        if program is None:
            raise NoEngineError("this image has neither Python's tensorrt nor trtexec") from None
        told = subprocess.run([program, "--help"], capture_output=True, text=True, check=False)
        # Its first line, whatever it is asked for: &&&& RUNNING TensorRT.trtexec [TensorRT v110400] …
        found = re.search(r"\[TensorRT v(\d+)\]", told.stdout + told.stderr)
        if found is None:
            raise NoEngineError(f"{program} does not say which TensorRT it is of") from None
        return Builder(program, found[1])
    return Builder(None, str(tensorrt.__version__))


def _card() -> dict[str, str]:
    """The kind of card that this container sees."""
    query = ["nvidia-smi", "--query-gpu=name,compute_cap", "--format=csv,noheader"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise NoEngineError(f"nvidia-smi shows no card: {error}") from error
    kinds = sorted({line.strip() for line in told.splitlines() if line.strip()})
    if len(kinds) != 1:
        seen = f"cards of {len(kinds)} kinds ({'; '.join(kinds)}): each kind needs a container of its own"
        raise NoEngineError(seen if kinds else "nvidia-smi shows no card")
    name, _, capability = kinds[0].rpartition(",")
    return {"gpu": name.strip(), "compute_capability": capability.strip()}


def _is_whole(place: Path, facts: dict[str, Any]) -> bool:
    """Whether the plan that is kept there was written to its end and is what was written."""
    try:
        record = json.loads((place / RECORD).read_text(encoding="utf-8"))
        return bool(record == {"facts": facts, "sha256": _digest(place / PLAN)})
    except (OSError, ValueError):
        return False


def _digest(path: Path) -> str:
    """Sha256 of a file, or of a folder's files with their names."""
    digest = hashlib.sha256()
    for file in sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]:
        digest.update(file.name.encode())
        with file.open("rb") as stream:
            while piece := stream.read(_PIECE):
                digest.update(piece)
    return digest.hexdigest()


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Nobody else has this lock meanwhile; the system takes it from a process that dies."""
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("another container builds this engine: waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _repository(recipe: dict[str, Any], plan: Path) -> Path:
    """A copy of the model repository that has the engine in place of the graph."""
    folder = Path(tempfile.mkdtemp(prefix="models-"))
    model = MODELS / recipe["model"]

    def left_out(path: str, names: list[str]) -> list[str]:
        if Path(path) == model / recipe["version"]:
            return names
        return ["config.pbtxt"] if Path(path) == model else []

    shutil.copytree(MODELS, folder, ignore=left_out, dirs_exist_ok=True)
    shutil.copyfile(HERE / "config.pbtxt", folder / recipe["model"] / "config.pbtxt")
    (folder / recipe["model"] / recipe["version"] / PLAN).symlink_to(plan)
    return folder


def _recipe() -> dict[str, Any]:
    recipe: dict[str, Any] = json.loads((HERE / "recipe.json").read_text(encoding="utf-8"))
    return recipe


def _say(text: str) -> None:
    sys.stderr.write(f"start.py: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    if sys.argv[1:2] != ["--build"]:
        main(sys.argv[1:])
    try:
        build(*(Path(word) for word in sys.argv[2 : 2 + _BUILD_WORDS]))
    except NoEngineError as error:
        _say(str(error))
        sys.exit(1)
