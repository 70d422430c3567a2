"""What `bench` times: artifacts and models as the user named them, each on the backends that it is to run on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mlpack.api.lookup import artifact, intact_model, store_folder
from mlpack.core.user_code import is_reference
from mlpack.errors import MissingHardware, MissingLibrary, StageFailed, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mlpack.core.artifact import Stored
    from mlpack.core.backend_options import BackendOptions
    from mlpack.core.model import Format, Model
    from mlpack.core.recipe import SourceSpec
    from mlpack.core.stage import Stage
    from mlpack.engine.context import Context

EVERY = "all"
_MODEL_SUFFIXES = {".pt2", ".pt", ".pth", ".onnx", ".safetensors"}


@dataclass(frozen=True)
class Contender:
    """A model on a backend. `key` names it within one run; `stored` is the artifact that it came in."""

    key: str
    label: str
    model: Model
    stored: Stored | None = None

    @property
    def golden(self) -> Path | None:
        """Rows that it came with."""
        rows = None if self.stored is None else self.stored.path / "golden" / "inputs.npz"
        return rows if rows is not None and rows.is_file() else None

    @property
    def backend(self) -> str:
        """The backend that runs it."""
        assert self.model.backend is not None
        return self.model.backend


def is_artifact(word: str, store: str | Path | None) -> bool:
    """Whether a word names an artifact rather than a model file or factory; a name in the store wins."""
    from mlpack.store.read import ARTIFACT, names

    if word.partition("@")[0] in names(store_folder(store)):
        return True
    path = Path(word).expanduser()
    if path.name == ARTIFACT or (path / ARTIFACT).is_file():
        return True
    return not is_reference(word) and not path.exists() and path.suffix not in _MODEL_SUFFIXES


def of_artifact(
    word: str | None, store: str | Path | None, backend: str | None, context: Context
) -> tuple[list[Contender], list[str]]:
    """The artifact's model on its own backend, on the one named, or on all; and what was left out, and why.

    Raises:
        UsageError: no such artifact, or the backend cannot run it.
        MissingHardware: it was made for hardware that is not here.
        Tampered: a file of it is missing.
    """
    stored = artifact(word, store)
    model = intact_model(stored)
    this = stored.artifact
    made = Contender("", f"{this.name}@{this.version}", model, stored)
    if backend is None:
        _refuse_elsewhere(stored)
        return [made], []
    return _on_backends(made, backend, context)


def of_model(spec: SourceSpec, backend: str | None, context: Context) -> tuple[list[Contender], list[str]]:
    """A model as the user would run it, and the files made of it that other backends run, where asked for.

    Of all backends, one that nothing can be made for is left out, and why is told.

    Raises:
        ModelError: the file or factory cannot be used.
        StageFailed: it cannot be exported, or the backend that was asked for refuses it.
        UsageError: the backend cannot run it.
    """
    from mlpack.backends import runs
    from mlpack.engine.run import run
    from mlpack.stages.load import Load

    inputs = context.data.inputs if context.data else ()
    source = run(Load.of(spec, inputs), None, context, label=f"load {spec.model}").model
    eager = Contender("", _short(spec.model), source)
    if backend is None or backend == eager.backend:
        return [eager], []
    context = replace(context, baseline=source)
    found, left_out = [eager] if backend == EVERY else [], []
    for made, stage in _made_of(source).items():
        names = [
            name
            for name in runs(made, context.target.kind)
            if name == backend or (backend == EVERY and name != eager.backend)
        ]
        for name in names:
            try:
                # The stage runs once: for a second backend its result is kept.
                model = source if stage is None else run(stage, source, context).model
                more, reasons = _on_backends(replace(eager, model=model), name, context)
            except (StageFailed, MissingLibrary, UsageError) as error:
                if backend != EVERY:
                    raise
                more, reasons = [], [f"{eager.label} on {name}: {error.message}"]
            found += more
            left_out += reasons
    return (found, left_out) if found else _on_backends(eager, backend, context)


def _made_of(source: Model) -> dict[Format, Stage | None]:
    """The formats that a model can be run in, each with the stage that makes it; None: it is in that format."""
    from mlpack.stages.compile_ahead import CompileAhead
    from mlpack.stages.export import Export
    from mlpack.stages.trace_module import TraceModule

    if source.format != "torch":
        return {source.format: None}
    return {
        "onnx": Export(),
        "torch": None,
        "aotinductor": CompileAhead(numerics="fp32"),
        "torchscript": TraceModule(numerics="fp32"),
    }


def _short(given: str) -> str:
    """`model.py:model` for a reference or path however long."""
    return given.rpartition("/")[2]


def _refuse_elsewhere(stored: Stored) -> None:
    this = stored.artifact
    if this.model.backend_options.graph_optimizations == "off":
        raise MissingHardware(
            f"{this.name}@{this.version} is made for {this.target.get('title', 'another machine')}, which is not here",
            f"to time its graph on this CPU all the same: mlpack bench {this.name}@{this.version} --backend all",
        )


def _on_backends(made: Contender, backend: str, context: Context) -> tuple[list[Contender], list[str]]:
    from mlpack.backends import BACKENDS, able

    names = able(made.model)
    if backend != EVERY and backend not in names:
        raise UsageError(
            f"{made.label} is {made.model.format}{_fused(made.model)}, which {backend} does not run",
            " or ".join(f"--backend {name}" for name in (*names, EVERY)),
        )
    found, left_out = [], []
    for name in names if backend == EVERY else (backend,):
        options = _options(made.model, name, context)
        try:
            reason = BACKENDS[name].refusal(made.model, context.target, options)
        except MissingLibrary as error:
            if backend != EVERY:
                raise
            reason = error.message
        if reason is None:
            model = made.model.model_copy(update={"backend": name, "backend_options": options})
            found.append(replace(made, model=model))
        else:
            left_out.append(f"{made.label} on {name}: {reason}")
    if not found:
        raise UsageError(f"{left_out[0]}", "--backend all times every backend that can run it")
    return found, left_out


def _fused(model: Model) -> str:
    return "" if model.only is None else f" with operators of {model.only}"


def _options(model: Model, backend: str, context: Context) -> BackendOptions:
    """As the artifact has them on its own backend, else as `compile` would choose them."""
    from mlpack.backends import ON_CUDA
    from mlpack.stages.compile import Compile

    if model.format == "torch" and backend in ON_CUDA:
        return model.backend_options.model_copy(update={"device": "cuda"})
    if model.format == "torch" or (model.backend == backend and model.backend_options.graph_optimizations == "all"):
        return model.backend_options
    return Compile(backend=backend).options(model, context.target, context.threads)


def keyed(contenders: Iterable[Contender]) -> list[Contender]:
    """Each with a key of its own; a model given twice is timed twice."""
    named: list[Contender] = []
    taken: dict[str, int] = {}
    for each in contenders:
        key = f"{each.label} · {each.model.numerics} · {each.backend}"
        taken[key] = taken.get(key, 0) + 1
        again = taken[key] > 1
        label = f"{each.label} ({taken[key]})" if again else each.label
        named.append(replace(each, key=f"{key} ({taken[key]})" if again else key, label=label))
    return named
