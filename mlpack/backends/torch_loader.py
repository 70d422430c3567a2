"""Makes a module again from a torch Model folder, with named inputs and a flat tuple of named outputs."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from mlpack.backends.torch_modes import made_ready, widened
from mlpack.backends.torch_surgery import replay
from mlpack.core.loader import Loader
from mlpack.core.user_code import load_function, running
from mlpack.core.weights import load_weights
from mlpack.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mlpack.core.model import Model

_SHOWN = 4


class Flat(torch.nn.Module):  # type: ignore[misc] # torch is opaque to mypy here
    """The user's module as `inner`: tensors in the order of `inputs` go in, a flat tuple comes out.

    With empty `outputs` it gives all that `inner` gives; else just these, by their path names.
    """

    def __init__(self, inner: torch.nn.Module, inputs: Sequence[str], outputs: Sequence[str] = ()) -> None:
        super().__init__()
        self.inner = inner
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self._by_position = takes_positions(inner)

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Tensors in the order of `inputs`; gives tensors in the order of `outputs`."""
        found = self.named(*tensors)
        return tuple(found[name] for name in self.outputs) if self.outputs else tuple(found.values())

    def named(self, *tensors: torch.Tensor) -> dict[str, torch.Tensor]:
        """The outputs by path name.

        Raises:
            ModelError: an output is no tensor.
        """
        given = (
            self.inner(*tensors) if self._by_position else self.inner(**dict(zip(self.inputs, tensors, strict=True)))
        )
        return flatten(given, self.inputs)


def takes_positions(inner: torch.nn.Module) -> bool:
    """Whether tensors go in by position: forward(*inputs), positional-only, or an exported program."""
    if isinstance(inner, Exported):
        return True
    if isinstance(inner, torch.jit.ScriptModule):
        return False
    kinds = {each.kind for each in inspect.signature(inner.forward).parameters.values()}
    return bool(kinds & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY})


class Exported(torch.nn.Module):  # type: ignore[misc] # likewise
    """An exported program's module, taking its tensors flat, whatever tree it was exported with."""

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        super().__init__()
        self.program = program
        self.program_module = program.module()
        self._tree = program.call_spec.in_spec

    def forward(self, *tensors: torch.Tensor) -> Any:
        """Tensors in the order of the program's user inputs; gives the tree that was exported."""
        args, kwargs = pytree.tree_unflatten(list(tensors), self._tree)
        return self.program_module(*args, **kwargs)

    def train(self, mode: bool = True) -> Exported:  # noqa: FBT001, FBT002 - the signature is torch's
        """Leave it as it was exported: its mode is part of the graph, and torch refuses to change it."""
        del mode
        return self


def flatten(value: Any, inputs: Sequence[str] = ()) -> dict[str, torch.Tensor]:
    """Tensors by path name: `logits`, `hidden.0`; a single tensor is `output`; None is left out.

    A name that an input has too gets `_out`, as a graph has one set of names.

    Raises:
        ModelError: something in it is no tensor, or there is no tensor.
    """
    if isinstance(value, torch.Tensor):
        return {"output" if "output" not in inputs else "output_out": value}
    found: dict[str, torch.Tensor] = {}
    _collect(value, "", found)
    if not found:
        raise ModelError(f"the module's output is {type(value).__name__} without a tensor", "return tensors")
    if len(found) == 1 and not isinstance(value, Mapping) and not _fields(value):
        found = {"output": next(iter(found.values()))}
    return {f"{name}_out" if name in inputs else name: tensor for name, tensor in found.items()}


def _fields(value: Any) -> tuple[str, ...]:
    if dataclasses.is_dataclass(value):
        return tuple(field.name for field in dataclasses.fields(value))
    return tuple(getattr(value, "_fields", ()))


def _collect(value: Any, path: str, found: dict[str, torch.Tensor]) -> None:
    if isinstance(value, torch.Tensor):
        found[path] = value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _collect(item, f"{path}.{key}" if path else str(key), found)
    elif fields := _fields(value):
        for name in fields:
            _collect(getattr(value, name), f"{path}.{name}" if path else name, found)
    elif isinstance(value, tuple | list):
        for at, item in enumerate(value):
            _collect(item, f"{path or 'output'}.{at}", found)
    elif value is not None:
        raise ModelError(
            f"output {path or 'output'!r} is a {type(value).__name__}, not a tensor",
            "return only tensors, in tuples, lists, dicts or dataclasses; a factory can wrap the module",
        )


def load_module(model: Model) -> Flat:
    """The module in eval mode: takes `model.inputs` by position, gives `model.outputs` as a flat tuple.

    The user's own module is `.inner`.

    Raises:
        ModelError: the user's code raises, or the weights do not fit it.
    """
    loader = Loader.read(model.path)
    inner = load_inner(model.path, loader)
    flat = Flat(inner, [spec.name for spec in model.inputs], [spec.name for spec in model.outputs])
    # Not flat.eval(): that would ask `inner` again, which a frozen module refuses.
    flat.training = False
    return flat


def load_exported(model: Model) -> torch.export.ExportedProgram | None:
    """The exported program, where the user handed one in."""
    loader = Loader.read(model.path)
    return read_program(model.path / (loader.archive or "")) if loader.kind == "exported_program" else None


def _unheard(_: str) -> None:
    """Nobody listens."""


def load_inner(folder: Path, loader: Loader, tell: Callable[[str], None] = _unheard) -> torch.nn.Module:
    """The user's own module as `loader.json` says, in inference mode and float32; `tell` hears what that changed.

    What was done to it since it was handed in is done again.

    Raises:
        ModelError: the user's code raises, the archive is damaged, or the weights do not fit.
    """
    made = _made(folder, loader, tell)
    return made if loader.changed is None else replay(made, loader.changed, folder)


def _made(folder: Path, loader: Loader, tell: Callable[[str], None]) -> torch.nn.Module:
    archive = folder / (loader.archive or "")
    if loader.kind == "exported_program":
        return Exported(read_program(archive))
    if loader.kind == "torchscript":
        return _read_torchscript(archive, tell)
    if loader.kind == "hf_folder":
        from mlpack.backends.torch_hf import load_hf
        from mlpack.backends.torch_hf_on_disk import load_on_disk

        return (load_on_disk if loader.on_disk else load_hf)(archive).eval()
    if loader.kind == "pickled_module":
        return made_ready(_read_pickle(archive, loader), tell)
    return made_ready(_from_factory(folder, loader, tell), tell, modes_count=loader.kind == "factory")


def read_program(archive: Path) -> torch.export.ExportedProgram:
    """Read a `.pt2`.

    Raises:
        ModelError: torch cannot read it.
    """
    with reading(archive, "export it again with this version of torch: torch.export.save(program, 'model.pt2')"):
        return torch.export.load(archive)


def _read_torchscript(archive: Path, tell: Callable[[str], None]) -> torch.nn.Module:
    with reading(archive, "save it again: torch.jit.save(torch.jit.script(model), 'model.pt')"):
        module: torch.nn.Module = torch.jit.load(archive, map_location="cpu")
    # A frozen module has lost its mode and is in eval mode already.
    return made_ready(module, tell) if hasattr(module, "training") else module


def _read_pickle(archive: Path, loader: Loader) -> torch.nn.Module:
    with running(loader.code, "the pickled module", ModelError):
        module: torch.nn.Module = torch.load(archive, map_location="cpu", weights_only=False)
    return module


class reading:  # noqa: N801 - reads as a verb: with reading(archive, ...)
    """A block in which torch reads the user's archive: whatever it raises, the archive is unusable."""

    def __init__(self, archive: Path, hint: str) -> None:
        self._archive = archive
        self._hint = hint

    def __enter__(self) -> None:
        """Nothing to set up."""

    def __exit__(self, kind: type[BaseException] | None, raised: BaseException | None, trace: object) -> None:
        if isinstance(raised, Exception):
            reason = next((line for line in str(raised).splitlines() if line.strip()), type(raised).__name__)
            raise ModelError(f"torch cannot read this {self._archive.suffix} file: {reason}", self._hint) from raised


def _from_factory(folder: Path, loader: Loader, tell: Callable[[str], None]) -> torch.nn.Module:
    reference = loader.code
    copied = None if loader.factory_file is None else folder / loader.factory_file
    function: Callable[[], Any] = load_function(reference, "factory", ModelError, copied)
    with running(reference, f"factory {reference.text!r}", ModelError):
        module = function()
    if not isinstance(module, torch.nn.Module):
        raise ModelError(
            f"factory {reference.text!r} gave a {type(module).__name__}, not an nn.Module",
            "return the module",
        )
    if loader.weights is None:
        return module
    state = load_weights(folder / loader.weights, loader.shared)
    wanted = module.state_dict()
    _check_fits(wanted, state, reference.text)
    narrower = [str(state[name].dtype) for name in wanted if state[name].dtype != wanted[name].dtype]
    half = next((each.removeprefix("torch.") for each in narrower if each.endswith("float16")), None)
    if half is not None:
        tell(widened(half))
    module.load_state_dict(state)
    return module


def _check_fits(wanted: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor], factory: str) -> None:
    complaints = []
    missing = [name for name in wanted if name not in state]
    unexpected = [name for name in state if name not in wanted]
    if missing:
        complaints.append(f"lacks {_some(missing)}, which the module has")
    if unexpected:
        complaints.append(f"has {_some(unexpected)}, which the module lacks")
    shapes = [
        f"{name} is {list(state[name].shape)}, the module's is {list(wanted[name].shape)}"
        for name in wanted
        if name in state and state[name].shape != wanted[name].shape
    ]
    if shapes:
        complaints.append(_some(shapes, "; "))
    if complaints:
        raise ModelError(
            f"the state dict does not fit the module of {factory!r}: it " + "; it ".join(complaints),
            "let the factory build the module with the arguments that it was trained with",
        )


def _some(names: Sequence[str], separator: str = ", ") -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return separator.join(names[:_SHOWN]) + more
