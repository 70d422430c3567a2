"""Asks a torch module what goes in and what comes out, by running it; refuses what cannot be optimized."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from mlpack.backends.torch_runner import to_numpy, to_tensor
from mlpack.core.model import TensorSpec
from mlpack.errors import ModelError, StageFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import numpy as np

    from mlpack.backends.torch_loader import Flat
    from mlpack.core.model import Dim


@dataclass(frozen=True)
class Signature:
    """forward()'s parameters in order, those without default, and whether it takes any others."""

    names: tuple[str, ...]
    required: frozenset[str]
    open_to: Literal["no", "names", "positions"]


def signature(inner: torch.nn.Module) -> Signature:
    """What forward() may be given.

    Raises:
        ModelError: a TorchScript argument is no tensor.
    """
    if isinstance(inner, torch.jit.ScriptModule):
        arguments = inner.forward.schema.arguments[1:]
        for argument in arguments:
            if not argument.has_default_value() and str(argument.type) not in {"Tensor", "Optional[Tensor]"}:
                raise ModelError(
                    f"forward() of this TorchScript takes {argument.name!r}, a {argument.type}, not a tensor",
                    "save a module whose forward() takes tensors only",
                )
        names = tuple(argument.name for argument in arguments)
        return Signature(names, frozenset(each.name for each in arguments if not each.has_default_value()), "no")
    parameters = inspect.signature(inner.forward).parameters.values()
    kinds = {each.kind for each in parameters}
    named = [each for each in parameters if each.kind not in {each.VAR_POSITIONAL, each.VAR_KEYWORD}]
    open_to: Literal["no", "names", "positions"] = "no"
    if inspect.Parameter.VAR_KEYWORD in kinds:
        open_to = "names"
    elif inspect.Parameter.VAR_POSITIONAL in kinds:
        open_to = "positions"
    return Signature(
        tuple(each.name for each in named),
        frozenset(each.name for each in named if each.default is each.empty),
        open_to,
    )


def float_dtype(inner: torch.nn.Module) -> str:
    """The numpy name of the module's own floating dtype (float32 where it has no parameters)."""
    for parameter in inner.parameters():
        if parameter.is_floating_point():
            return str(parameter.dtype).removeprefix("torch.")
    return "float32"


def program_inputs(program: torch.export.ExportedProgram) -> tuple[TensorSpec, ...]:
    """The inputs of an exported program; a symbolic first dim is `batch`, other symbols keep their names.

    Raises:
        ModelError: an input is no tensor.
    """
    signed = program.graph_signature
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    found: list[tuple[str, torch.Tensor]] = []
    for name in signed.user_inputs:
        value = values.get(name) if isinstance(name, str) else None
        if not isinstance(value, torch.Tensor):
            raise ModelError(
                f"the exported program takes {name!r}, which is no tensor",
                "export it with tensors as its only inputs",
            )
        found.append((str(name), value))
    dims = [dim for _, value in found for dim in value.shape if not _is_number(dim)]
    derived = next((dim for dim in dims if not str(dim).isidentifier()), None)
    if derived is not None:
        raise ModelError(
            f"the exported program has an input dim that follows from another: {derived}",
            "export it again with independent dims",
        )
    symbols = {str(value.shape[0]): "batch" for _, value in found if value.dim() and not _is_number(value.shape[0])}
    return tuple(
        TensorSpec(
            name=name,
            dtype=str(value.dtype).removeprefix("torch."),
            dims=tuple(int(dim) if _is_number(dim) else symbols.get(str(dim), str(dim)) for dim in value.shape),
        )
        for name, value in found
    )


def training_operators(program: torch.export.ExportedProgram) -> tuple[str, ...]:
    """Operators of the program that do what is done in training, dropout say, as they were exported."""
    found = []
    for node in program.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        for at, argument in enumerate(schema.arguments if schema is not None else ()):
            given = node.args[at] if at < len(node.args) else node.kwargs.get(argument.name)
            if argument.name in {"train", "training"} and given is True:
                found.append(str(node.target).split(".")[1])
    return tuple(dict.fromkeys(found))


def _is_number(dim: object) -> bool:
    return isinstance(dim, int)


def check_repeatable(module: Flat, inputs: tuple[str, ...], arrays: Mapping[str, np.ndarray]) -> None:
    """Run twice on the same rows.

    Raises:
        StageFailed: a call changed a buffer or parameter.
        ModelError: the two answers differ.
    """
    tensors = tuple(to_tensor(arrays[name]) for name in inputs)
    buffers = {name: buffer.clone() for name, buffer in module.inner.named_buffers()}
    versions = {name: parameter._version for name, parameter in module.inner.named_parameters()}  # noqa: SLF001 - torch's own count of writes
    first = _run(module, tensors)
    changed = [
        name for name, buffer in module.inner.named_buffers() if name in buffers and not _same(buffers[name], buffer)
    ] + [
        name
        for name, parameter in module.inner.named_parameters()
        if versions.get(name) != parameter._version  # noqa: SLF001
    ]
    if changed:
        raise StageFailed(
            f"each call changes the module's buffer {changed[0]!r}: it keeps state between requests",
            "make the state an input and an output of forward()",
        )
    second = _run(module, tensors)
    if list(first) != list(second):
        raise ModelError(
            f"two identical calls gave outputs {', '.join(first)} and {', '.join(second)}",
            "always return the same outputs",
        )
    different = [name for name in first if not _same(first[name], second[name])]
    if different:
        raise ModelError(
            f"the module is not deterministic: two identical calls differ in output {different[0]!r}",
            "take randomness, sampling or hidden state out of forward() (eval mode is on already)",
        )


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and bool(torch.all((one == other) | ((one != one) & (other != other))))  # noqa: PLR0124 - NaN


def check_no_nan(module: Flat, inputs: tuple[str, ...], arrays: Mapping[str, np.ndarray]) -> None:
    """Refuse a module that answers real rows with NaN.

    Raises:
        ModelError: which output.
    """
    for name, tensor in _run(module, tuple(to_tensor(arrays[name]) for name in inputs)).items():
        if tensor.is_floating_point() and bool(torch.isnan(tensor).any()):
            raise ModelError(
                f"output {name!r} of the original model is NaN on the first rows of the data",
                "check the weights, and that the data is what the model was trained on",
            )


def _run(module: Flat, tensors: tuple[torch.Tensor, ...]) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        try:
            named = module.named(*(tensor.clone() for tensor in tensors))
        except IndexError as error:
            _refuse_unknown_ids(module, tensors, error)
            raise
        return {name: tensor.clone() for name, tensor in named.items()}


def _refuse_unknown_ids(module: Flat, tensors: tuple[torch.Tensor, ...], error: IndexError) -> None:
    """Say so where a lookup failed because ids are higher than any table of the module has."""
    sizes = [each.num_embeddings for each in module.inner.modules() if isinstance(each, torch.nn.Embedding)]
    whole = [tensor for tensor in tensors if tensor.numel() and not tensor.is_floating_point()]
    highest = max((int(tensor.max()) for tensor in whole), default=-1)
    if sizes and highest >= max(sizes):
        raise ModelError(
            f"the rows have the id {highest}, but the model's largest embedding has {max(sizes)} entries",
            "give the tokenizer, or the data, that the model was trained with",
        ) from error


def output_specs(
    module: Flat,
    specs: tuple[TensorSpec, ...],
    sizes: Mapping[str, int],
    make: Callable[[Mapping[str, int]], Mapping[str, np.ndarray]],
) -> tuple[TensorSpec, ...]:
    """Names, dtypes and dims of the outputs.

    Which dims follow the batch or another symbol of the inputs is found by running once with `sizes` and once
    more for each symbol, with one more of it; `make` gives inputs for sizes by symbol.

    Raises:
        ModelError: the module does not take another batch size, or an output is no tensor.
    """
    names = tuple(spec.name for spec in specs)
    base = _run_named(module, names, make(sizes))
    dims: dict[str, list[Dim]] = {name: list(tensor.shape) for name, tensor in base.items()}
    for symbol in sizes:
        larger = _larger(module, names, make, sizes, symbol)
        if list(larger) != list(base):
            raise ModelError(
                f"the outputs change with {symbol!r}: {', '.join(larger)}", "return the same outputs always"
            )
        for name, tensor in larger.items():
            if tensor.dim() != base[name].dim():
                raise ModelError(f"output {name!r} changes its rank with {symbol!r}", "return tensors of one rank")
            for axis, (small, large) in enumerate(zip(base[name].shape, tensor.shape, strict=True)):
                if large != small:
                    follows = (small, large) == (sizes[symbol], sizes[symbol] + 1)
                    dims[name][axis] = symbol if follows else _derived(dims[name][axis], name, axis)
    return tuple(
        TensorSpec(name=name, dtype=to_numpy(tensor).dtype.name, dims=tuple(dims[name]))
        for name, tensor in base.items()
    )


def smallest_batch(specs: tuple[TensorSpec, ...], program: torch.export.ExportedProgram) -> int:
    """The smallest batch from 1 on that the program takes: what a fixed batch is fixed at."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    bounds = {str(symbol): int(bound.lower) for symbol, bound in program.range_constraints.items()}
    return max(1, *(bounds.get(str(values[spec.name].shape[0]), 1) for spec in specs))


_FORWARD_FAILS = (RuntimeError, ValueError, TypeError, IndexError, KeyError, AssertionError)


def sizes_to_try(specs: tuple[TensorSpec, ...], program: torch.export.ExportedProgram | None) -> dict[str, int]:
    """A size for each symbol of the inputs; the program's constraints allow it and the next larger one."""
    symbols = tuple(dict.fromkeys(dim for spec in specs for dim in spec.dims if isinstance(dim, str)))
    sizes = {symbol: 2 if symbol == "batch" else 8 for symbol in symbols}
    if program is None:
        return sizes
    bounds = {str(symbol): bound for symbol, bound in program.range_constraints.items()}
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    for spec in specs:
        for named, dim in zip(spec.dims, values[spec.name].shape, strict=True):
            bound = bounds.get(str(dim))
            if isinstance(named, str) and bound is not None:
                upper = sizes[named] if str(bound.upper) in {"int_oo", "oo"} else int(bound.upper) - 1
                sizes[named] = max(int(bound.lower), 1, min(sizes[named], upper))
    return sizes


def _derived(dim: Dim, name: str, axis: int) -> str:
    return dim if isinstance(dim, str) else f"{name.replace('.', '_')}_{axis}"


def _larger(
    module: Flat,
    names: tuple[str, ...],
    make: Callable[[Mapping[str, int]], Mapping[str, np.ndarray]],
    sizes: Mapping[str, int],
    symbol: str,
) -> dict[str, torch.Tensor]:
    try:
        return _run_named(module, names, make({**sizes, symbol: sizes[symbol] + 1}))
    except _FORWARD_FAILS as error:
        if symbol != "batch":
            raise
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ModelError(
            f"the module takes a batch of {sizes[symbol]} but not of {sizes[symbol] + 1}: {reason}",
            "write forward() for any batch size, or keep the batch fixed: --static-batch",
        ) from error


def _run_named(module: Flat, names: Iterable[str], arrays: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return _run(module, tuple(to_tensor(arrays[name]) for name in names))
