"""Which inputs a module gets: read from `--input`, else matched between the data and forward()."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mlpack.core.model import TensorSpec
from mlpack.errors import DataError, ModelError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlpack.core.model import Dim

_EXAMPLE = "--input name=float32:batch,3,224,224"
_DTYPES = (
    "float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8",
    "uint64", "uint32", "uint16", "uint8", "bool",
)  # fmt: skip
_DIM = re.compile(r"[1-9][0-9]*|[A-Za-z_][A-Za-z0-9_]*")


def parse_input(text: str) -> TensorSpec:
    """Read `name=dtype:dim,dim,...`, where a dim is a number or a name.

    Raises:
        UsageError: which piece is wrong.
    """
    name, equals, rest = text.partition("=")
    dtype, colon, dims = rest.partition(":")
    if not equals or not colon or not name.strip():
        raise UsageError(f"--input {text!r} is not name=dtype:dims", _EXAMPLE)
    if dtype.strip() not in _DTYPES:
        raise UsageError(f"--input {text!r}: {dtype!r} is no dtype", f"one of {', '.join(_DTYPES)}")
    pieces = [piece.strip() for piece in dims.split(",")]
    for piece in pieces:
        if not _DIM.fullmatch(piece):
            raise UsageError(
                f"--input {text!r}: {piece!r} is no dim",
                f"a dim is a number from 1 on, or a name; {_EXAMPLE}",
            )
    return TensorSpec(
        name=name.strip(),
        dtype=dtype.strip(),
        dims=tuple(int(piece) if piece.isdigit() else piece for piece in pieces),
    )


def parse_inputs(texts: Sequence[str]) -> tuple[TensorSpec, ...]:
    """Read all `--input`s.

    Raises:
        UsageError: a piece is wrong or a name comes twice.
    """
    specs = tuple(parse_input(text) for text in texts)
    names = [spec.name for spec in specs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"--input {twice} is given twice", "give each input once")
    return specs


@dataclass(frozen=True)
class Parameters:
    """forward()'s parameters that may take a tensor, in order.

    `required` have no default; `open_to` says whether it also takes tensors under any name (`**inputs`) or
    any number of them by position (`*inputs`).
    """

    names: tuple[str, ...]
    required: frozenset[str]
    open_to: Literal["no", "names", "positions"] = "no"


def choose_inputs(
    parameters: Parameters,
    given: tuple[TensorSpec, ...],
    data: tuple[TensorSpec, ...],
    *,
    float_dtype: str,
    static_batch: bool,
) -> tuple[TensorSpec, ...]:
    """The specs of a module's inputs, in the order of forward()'s parameters.

    A single array goes to a single input whatever its name. Floats in the data become the module's own
    `float_dtype`, as data is often kept in float64.

    Raises:
        ModelError: neither `--input` nor data says what goes in.
        DataError: names that fit no parameter, or parameters that get nothing.
    """
    found = given or tuple(_as_module_wants(spec, float_dtype) for spec in data)
    source = "--input" if given else "the data"
    if not found:
        shown = ", ".join(parameters.names) or "*inputs"
        raise ModelError(
            f"what goes into forward({shown}) is not known: no --input and no data", _hint(parameters.names)
        )
    found = _named_after_parameters(found, parameters, source)
    return tuple(_with_batch(spec, static_batch=static_batch) for spec in found)


def _hint(parameters: Sequence[str]) -> str:
    return " ".join(f"--input {name}=float32:batch,..." for name in parameters) or _EXAMPLE


def _as_module_wants(spec: TensorSpec, float_dtype: str) -> TensorSpec:
    if spec.dtype in {"float16", "float32", "float64"}:
        return spec.model_copy(update={"dtype": float_dtype})
    return spec


def _named_after_parameters(
    specs: tuple[TensorSpec, ...], parameters: Parameters, source: str
) -> tuple[TensorSpec, ...]:
    names = [spec.name for spec in specs]
    known = parameters.names
    if len(specs) == 1 and names[0] not in known and parameters.open_to != "names":
        takers = sorted(parameters.required, key=known.index) or list(known[:1])
        if len(takers) == 1:
            return (specs[0].model_copy(update={"name": takers[0]}),)
    if parameters.open_to == "positions" and not known:
        return specs
    strangers = [name for name in names if name not in known and parameters.open_to != "names"]
    if strangers:
        raise DataError(
            f"{source} names {', '.join(names)}, but forward() takes {', '.join(known)}",
            f"rename {strangers[0]!r}: arrays carry the names of forward()'s parameters",
        )
    lacking = [name for name in known if name in parameters.required and name not in names]
    if lacking:
        raise DataError(
            f"forward() needs {', '.join(lacking)}, which {source} does not have (it has {', '.join(names)})",
            f"add an array named {lacking[0]!r}" if source == "the data" else f"--input {lacking[0]}=float32:batch,...",
        )
    order = {name: at for at, name in enumerate(known)}
    return tuple(sorted(specs, key=lambda spec: order.get(spec.name, len(order))))


def _with_batch(spec: TensorSpec, *, static_batch: bool) -> TensorSpec:
    dims: tuple[Dim, ...] = spec.dims
    if not dims:
        raise ModelError(f"input {spec.name!r} has no dims, so no batch", "give it a first dim: the batch")
    if "batch" in dims[1:]:
        raise ModelError(
            f"input {spec.name!r} has the batch at dim {dims.index('batch')}; mlpack wants it first",
            "wrap the module in a factory whose forward() transposes its inputs",
        )
    first: Dim = (dims[0] if isinstance(dims[0], int) else 1) if static_batch else "batch"
    return spec.model_copy(update={"dims": (first, *dims[1:])})
