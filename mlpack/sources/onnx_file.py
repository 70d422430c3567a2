"""An ONNX file, with its external data files beside it."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from mlpack.core.model import Model, TensorSpec
from mlpack.errors import ModelError
from mlpack.sources.taking import copy_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx

    from mlpack.core.recipe import SourceSpec
    from mlpack.sources.source import Detected, Source

_OLDEST_OPSET = 7


class _OnnxFile:
    def write(self, detected: Detected, spec: SourceSpec, out: Path) -> Model:
        """Check the file and its external data, copy both, and read the specs from the graph."""
        path = detected.file
        proto = _parse(path)
        external = _check_external(proto, path)
        _check_graph(proto, path, external)
        copy_in(path, out / "model.onnx")
        for relative in external:
            copy_in(path.parent / relative, out / relative)
        inputs, outputs = _specs(proto.graph, path, static_batch=spec.static_batch)
        return Model(path=out, entry="model.onnx", format="onnx", inputs=inputs, outputs=outputs, backend="onnxruntime")


def _parse(path: Path) -> onnx.ModelProto:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        return onnx.load(path, load_external_data=False)
    except DecodeError as error:
        raise ModelError(f"onnx cannot parse {path}: {error}", "export or download it again") from error


def _check_external(proto: onnx.ModelProto, path: Path) -> list[str]:
    """Relative paths of the external data files, each there and long enough."""
    from mlpack.core.external_data import constants_of, is_beside

    needed: dict[str, int] = {}
    for tensor in filter(is_beside, constants_of(proto)):
        entry = {pair.key: pair.value for pair in tensor.external_data}
        location = entry.get("location", "")
        if not location or PurePosixPath(location).is_absolute() or ".." in PurePosixPath(location).parts:
            raise ModelError(
                f"{path} keeps {tensor.name!r} at {location!r}, outside its own folder",
                "save it with its data beside it: onnx.save_model(..., save_as_external_data=True)",
            )
        needed[location] = max(needed.get(location, 0), int(entry.get("offset", 0)) + int(entry.get("length", 0)))
    for location, size in needed.items():
        file = path.parent / location
        if not file.is_file():
            raise ModelError(
                f"{path} needs {location} beside it, which is not there", f"put {location} into {path.parent}"
            )
        if file.stat().st_size < size:
            raise ModelError(
                f"{file} is cut off: {file.stat().st_size} bytes, but {path.name} refers to {size}",
                "copy or download it again",
            )
    return sorted(needed)


def _check_graph(proto: onnx.ModelProto, path: Path, external: list[str]) -> None:
    import onnx

    opsets = {entry.domain or "ai.onnx": entry.version for entry in proto.opset_import}
    domains = {node.domain or "ai.onnx" for node in proto.graph.node}
    if domains == {"ai.onnx.ml"}:
        raise ModelError(
            f"{path} is a classical model (all its operators are ai.onnx.ml: trees, SVMs, ...)",
            "mlpack optimizes neural networks; serve this file with onnxruntime as it is",
        )
    if opsets.get("ai.onnx", _OLDEST_OPSET) < _OLDEST_OPSET:
        raise ModelError(
            f"{path} has opset {opsets['ai.onnx']}; mlpack reads {_OLDEST_OPSET} and newer",
            "export it with opset 20",
        )
    try:
        with _checkable(path, external) as file:
            onnx.checker.check_model(str(file))
    except onnx.checker.ValidationError as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), "")
        raise ModelError(f"{path} is not a valid ONNX graph: {reason}", "export it again") from error


@contextmanager
def _checkable(path: Path, external: list[str]) -> Iterator[Path]:
    """The file; beside stand-ins, where its data have other names too, as in the store: the checker refuses those.

    Of the data it looks at names and sizes alone: the stand-ins are as long, and empty.
    """
    if all((path.parent / each).stat().st_nlink == 1 for each in external):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        shutil.copyfile(path, place / path.name)
        for each in external:
            (place / each).parent.mkdir(parents=True, exist_ok=True)
            with (place / each).open("wb") as stream:
                stream.truncate((path.parent / each).stat().st_size)
        yield place / path.name


def _specs(
    graph: onnx.GraphProto, path: Path, *, static_batch: bool
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    weights = {tensor.name for tensor in graph.initializer}
    given = [value for value in graph.input if value.name not in weights]
    if not given:
        raise ModelError(f"{path} takes no inputs", "nothing to optimize: it always answers the same")
    symbols: dict[int | str, str] = {
        dims[0]: "batch" for dims in map(_dims, given) if dims and isinstance(dims[0], str)
    }
    inputs = tuple(_spec(value, symbols, path) for value in given)
    outputs = tuple(_spec(value, symbols, path) for value in graph.output)
    if static_batch:
        inputs, outputs = tuple(map(_with_batch_one, inputs)), tuple(map(_with_batch_one, outputs))
    return inputs, outputs


def _dims(value: onnx.ValueInfoProto) -> tuple[int | str, ...]:
    return tuple(
        dim.dim_value
        if dim.HasField("dim_value")
        else dim.dim_param or ("batch" if axis == 0 else f"{value.name}_{axis}")
        for axis, dim in enumerate(value.type.tensor_type.shape.dim)
    )


def _spec(value: onnx.ValueInfoProto, symbols: dict[int | str, str], path: Path) -> TensorSpec:
    import onnx

    if not value.type.HasField("tensor_type"):
        raise ModelError(
            f"{path}: {value.name!r} is a {value.type.WhichOneof('value')}, not a tensor",
            "export it with tensors only",
        )
    dims = tuple(symbols.get(dim, dim) for dim in _dims(value))
    return TensorSpec(
        name=value.name,
        dtype=onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name,
        dims=dims,
    )


def _with_batch_one(spec: TensorSpec) -> TensorSpec:
    return spec.model_copy(update={"dims": tuple(1 if dim == "batch" else dim for dim in spec.dims)})


SOURCE: Source = _OnnxFile()
