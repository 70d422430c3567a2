"""A quantized graph read back: its products, their weights and scales, and the same products in the float graph."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx

from mlpack.core.external_data import array_of

if TYPE_CHECKING:
    from collections.abc import Iterator

# What onnxruntime's quantizer adds to the name of a result that becomes an output of the graph, and of a weight.
BEFORE_OUTPUT = "_QuantizeLinear_Input"
_OF_WEIGHTS = "_quantized"
# The axis of the output channels.
PRODUCTS = {"Conv": 1, "ConvTranspose": 1, "Gemm": -1, "MatMul": -1}


def quantized_products(before: QdqGraph, after: QdqGraph) -> Iterator[tuple[onnx.NodeProto, onnx.NodeProto]]:
    """The products with quantized weights, each with its twin in the float graph, in the order of the graph."""
    # Nodes may have no name, and a result is renamed where the quantizer takes the Relu behind it away.
    twins = {before.product(node): node for node in before.proto.graph.node if node.op_type in PRODUCTS}
    for node in after.proto.graph.node:
        if node.op_type in PRODUCTS and after.is_quantized_constant(node.input[1]):
            twin = twins.get(after.product(node))
            if twin is not None:
                yield node, twin


class QdqGraph:
    """A Q/DQ graph: who gives and who reads a tensor, and what its constants hold."""

    def __init__(self, proto: onnx.ModelProto, folder: Path | None = None) -> None:
        self.proto = proto
        self.folder = folder or Path()
        self.constants = {each.name: each for each in proto.graph.initializer}
        self.makers = {tensor: node for node in proto.graph.node for tensor in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = {each.name: [] for each in proto.graph.output}
        for node in proto.graph.node:
            for tensor in node.input:
                self.readers.setdefault(tensor, []).append(node)

    def is_quantized_constant(self, tensor: str) -> bool:
        """Whether it is given by a DequantizeLinear of a constant, or by a Q/DQ pair around one."""
        return self.made_by(tensor, "DequantizeLinear") and self.unquantized(tensor) in self.constants

    def unquantized(self, tensor: str) -> str:
        """What is quantized in front of the DequantizeLinear that gives this tensor; itself where none does."""
        for kind in ("DequantizeLinear", "QuantizeLinear"):
            if self.made_by(tensor, kind):
                tensor = self.makers[tensor].input[0]
        return tensor

    def product(self, node: onnx.NodeProto) -> tuple[str, str, str]:
        """What a product is known by in the float graph and in the quantized one: operator, input and weight."""
        source, weight = (self.unquantized(name) for name in node.input[:2])
        return node.op_type, source.removesuffix(BEFORE_OUTPUT), weight.removesuffix(_OF_WEIGHTS)

    def outputs(self, product: onnx.NodeProto) -> int:
        """The number of its output channels."""
        dims = self.constants[self.unquantized(product.input[1])].dims
        attributes = {each.name: each.i for each in product.attribute}
        if product.op_type == "ConvTranspose":
            return int(dims[1] * attributes.get("group", 1))
        first = product.op_type == "Conv" or (product.op_type == "Gemm" and attributes.get("transB") == 1)
        return int(dims[0] if first else dims[-1])

    def bias_size(self, tensor: str) -> int | None:
        """How many numbers a bias has that is a constant in float or int32; None of any other."""
        constant = self.constants.get(self.unquantized(tensor))
        if constant is None or constant.data_type not in {onnx.TensorProto.FLOAT, onnx.TensorProto.INT32}:
            return None
        return int(np.prod(constant.dims))

    def scale(self, tensor: str, channels: int) -> np.ndarray:
        """The scale of the DequantizeLinear that gives a tensor, one for each channel."""
        return np.resize(self.array(self.makers[tensor].input[1]).astype(np.float64), channels)

    def array(self, constant: str) -> np.ndarray:
        """What a constant holds."""
        return array_of(self.constants[constant], self.folder)

    def made_by(self, tensor: str, kind: str) -> bool:
        """Whether a node of this type gives the tensor."""
        return tensor in self.makers and self.makers[tensor].op_type == kind
