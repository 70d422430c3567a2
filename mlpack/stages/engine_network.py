"""The network that TensorRT's parser makes of an ONNX graph: what it has no layer for, and its types."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlpack.errors import StageFailed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlpack.backends.tensorrt_library import Library

COMPUTE = ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY", "EINSUM")
# These hand on what they are given: a weight that is dequantized stays so behind them.
_HAND_ON = {"SHUFFLE", "IDENTITY", "SQUEEZE", "UNSQUEEZE"}
_NAMED = 4


@dataclass(frozen=True)
class Types:
    """What the parsed network computes in: layers by kind, tensors by type, and the layers that multiply."""

    layers: dict[str, int]
    tensors: dict[str, int]
    compute: dict[str, int]
    quantized: int


def parsed(library: Library, builder: Any, graph: Path) -> Any:
    """The network of an ONNX file. Since TensorRT 11 every network is strongly typed: the graph's types are its types.

    Raises:
        StageFailed: the parser has no layer for some nodes (they are named), or cannot read the file.
    """
    network = builder.create_network(0)
    parser = library.module.OnnxParser(network, library.logger)
    if parser.parse_from_file(str(graph)):
        return network
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    lacking = [error for error in errors if error.code().name.startswith("UNSUPPORTED_NODE") and error.node_operator()]
    if not lacking:
        told = f"{errors[0].desc()} {errors[0].node_name()}".strip() if errors else library.logger.complaint()
        raise StageFailed(f"{library.title} cannot read this graph: {told}", "try --backend onnxruntime")
    named = [f"{error.node_operator()} ({error.node_name()})" for error in lacking[:_NAMED]]
    more = f" and {len(lacking) - _NAMED} more" if len(lacking) > _NAMED else ""
    raise StageFailed(
        f"{library.title} has no layer for {', '.join(named)}{more}",
        "try --backend onnxruntime, whose TensorRT provider leaves such nodes to CUDA",
    )


def types_of(network: Any) -> Types:
    """Counted over the whole network, before the builder fuses any of it."""
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    outputs = {tensor.name: (layer, tensor) for layer in layers for tensor in _tensors(layer, "output")}
    computing = [layer for layer in layers if layer.type.name in COMPUTE]
    return Types(
        layers=dict(Counter(layer.type.name for layer in layers)),
        tensors=dict(Counter(tensor.dtype.name for _, tensor in outputs.values())),
        compute=dict(Counter(next(_tensors(layer, "input")).dtype.name for layer in computing)),
        quantized=sum(_is_quantized(layer, outputs) for layer in computing),
    )


def _tensors(layer: Any, side: str) -> Iterator[Any]:
    count, get = getattr(layer, f"num_{side}s"), getattr(layer, f"get_{side}")
    return (tensor for index in range(count) if (tensor := get(index)) is not None)


def _is_quantized(layer: Any, outputs: dict[str, tuple[Any, Any]]) -> bool:
    """Whether what it multiplies, data and weights, comes out of DequantizeLinear: only then is its kernel int8's."""
    factors = list(_tensors(layer, "input"))[:2]
    return len(factors) > 1 and all(_source(tensor, outputs) == "DEQUANTIZE" for tensor in factors)


def _source(tensor: Any, outputs: dict[str, tuple[Any, Any]]) -> str | None:
    while tensor.name in outputs:
        layer, _ = outputs[tensor.name]
        if layer.type.name not in _HAND_ON:
            return str(layer.type.name)
        tensor = layer.get_input(0)
    return None
