"""Weight-only graphs: products and look-ups whose constant weights are kept in blocks of few bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mlpack.core.external_data import array_of, is_beside
from mlpack.quantization.blocks import whole_numbers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from mlpack.quantization.beside import DataFile
    from mlpack.quantization.blocks import Form, Packed

_DOMAIN = "com.microsoft"
_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16}
_STORED = {*_FLOATS, TensorProto.BFLOAT16}
# What may stand between a constant and the node that it is for.
_ON_THE_WAY = {"Transpose", "Cast"}
_MATRIX = 2
_BIAS = 2
_INT8_ACTIVATIONS = 4
# Beyond so many bits there is none: the weight is made float anew in each call, 15 times the time (1.31, AVX512-VNNI).
_HAS_FLOAT_KERNEL = 4
# From here on DequantizeLinear takes blocks, and files hold int4.
BLOCKS_OPSET = 21
_INT4_IR = 10


@dataclass(frozen=True)
class Weight:
    """A constant matrix that the node in this place multiplies with or looks up in.

    `turned`: it is kept as [N, K]; `widened`: it is kept in half precision, and read in float32.
    """

    place: int
    node: onnx.NodeProto
    name: str
    turned: bool
    widened: bool = False

    @property
    def looked_up(self) -> bool:
        """Whether rows are picked, not multiplied."""
        return str(self.node.op_type) == "Gather"


class WeightGraph:
    """A float graph, its constant matrices, and the same graph with some of them in blocks.

    Constants that lie in files, of `folder`, are read one at a time; what is made of them goes into `data` at once.
    """

    def __init__(self, proto: onnx.ModelProto, folder: Path, data: DataFile | None = None) -> None:
        self.proto, self._folder, self._data = proto, folder, data
        self._constants = {each.name: each for each in proto.graph.initializer}
        self._instead: dict[int, list[onnx.NodeProto]] = {}
        self._made: dict[str, onnx.TensorProto] = {}
        self._ready: dict[tuple[Any, ...], list[str]] = {}

    @property
    def float_bytes(self) -> int:
        """Of all constants that are floats, each once."""
        return sum(_size(each) for each in self._constants.values() if each.data_type in _STORED)

    def weights(self) -> Iterator[Weight]:
        """Of MatMul, Gemm and Gather nodes, in the order of the graph, outside of its subgraphs."""
        makers = {tensor: node for node in self.proto.graph.node for tensor in node.output}
        for place, node in enumerate(self.proto.graph.node):
            if node.op_type == "MatMul" or (node.op_type == "Gemm" and self._is_plain(node)):
                found = self._matrix(node.input[1], makers)
                if found is not None:
                    name, turned, widened = found
                    yield Weight(place, node, name, turned != bool(_told(node, "transB", 0)), widened)
            elif node.op_type == "Gather" and not _told(node, "axis", 0):
                found = self._matrix(node.input[0], makers)
                if found is not None and not found[1]:
                    # A table [rows, K] has its blocks along K, as a matrix [N, K] does.
                    yield Weight(place, node, found[0], turned=True, widened=found[2])

    def _is_plain(self, gemm: onnx.NodeProto) -> bool:
        """Whether it is a product and a sum: the first factor as it is, and what scales the bias scales a constant."""
        scaled = _told(gemm, "beta", 1.0) != 1.0 and len(gemm.input) > _BIAS
        return not _told(gemm, "transA", 0) and not (scaled and gemm.input[_BIAS] not in self._constants)

    def _matrix(self, tensor: str, makers: Mapping[str, onnx.NodeProto]) -> tuple[str, bool, bool] | None:
        """The constant that a tensor is, and whether it is turned and widened on the way."""
        turned = widened = False
        while tensor not in self._constants:
            maker = makers.get(tensor)
            if maker is None or maker.op_type not in _ON_THE_WAY:
                return None
            if maker.op_type == "Transpose":
                turned ^= _told(maker, "perm", [1, 0]) == [1, 0]
            elif _told(maker, "to", 0) != TensorProto.FLOAT:
                return None
            widened |= maker.op_type == "Cast"
            tensor = maker.input[0]
        constant = self._constants[tensor]
        known = _STORED if widened else _FLOATS
        return (tensor, turned, widened) if len(constant.dims) == _MATRIX and constant.data_type in known else None

    def shape(self, weight: Weight) -> tuple[int, int]:
        """K and N."""
        first, second = self._constants[weight.name].dims
        return (second, first) if weight.turned else (first, second)

    def size_bytes(self, weight: Weight) -> int:
        """Of the constant as it is."""
        return _size(self._constants[weight.name])

    def scale_bytes(self, weight: Weight) -> int:
        """Of one scale, which is of the type that is computed in."""
        kept = TensorProto.FLOAT if weight.widened else self._constants[weight.name].data_type
        return int(helper.tensor_dtype_to_np_dtype(kept).itemsize)

    def matrix(self, weight: Weight) -> np.ndarray:
        """The weight as [K, N]; what a Gemm multiplies it by is in it."""
        array = array_of(self._constants[weight.name], self._folder)
        if weight.widened:
            array = array.astype(np.float32)
        alpha = _told(weight.node, "alpha", 1.0)
        turned = array.T if weight.turned else array
        return turned if alpha == 1.0 else turned * np.asarray(alpha, array.dtype)

    def known(self, weight: Weight, form: Form) -> bool:
        """Whether this constant is kept so already, for another node."""
        return _key(weight, form) in self._ready

    def keep(self, weight: Weight, form: Form, packed: Packed | None, *, int8_activations: bool) -> int:
        """Let the node read its weight in blocks; `packed` is None where it is known. Gives the bytes that are new."""
        inputs, new = self._inputs(weight, form, packed)
        node = weight.node
        size, count = self.shape(weight)
        if weight.looked_up:
            told = {"gather_axis": 0, "quantize_axis": 1, "block_size": form.block, "bits": form.bits}
            self._instead[weight.place] = [
                _as(node, "GatherBlockQuantized", [inputs[0], node.input[1], *inputs[1:]], told)
            ]
            return new
        told = {"K": size, "N": count, "bits": form.bits, "block_size": form.block}
        if int8_activations or form.bits > _HAS_FLOAT_KERNEL:
            told["accuracy_level"] = _INT8_ACTIVATIONS
        made = [_as(node, "MatMulNBits", [node.input[0], *inputs], told)]
        if node.op_type == "Gemm" and len(node.input) > _BIAS and node.input[_BIAS]:
            # The runtimes take the sum into the product.
            made[0].output[0] = f"{node.output[0]}/product"
            summands = [made[0].output[0], self._bias(node)]
            name = f"{node.name or node.output[0]}_bias"
            made.append(helper.make_node("Add", summands, list(node.output), name=name))
        self._instead[weight.place] = made
        return new

    def _inputs(self, weight: Weight, form: Form, packed: Packed | None) -> tuple[list[str], int]:
        """The names of what is kept: integers, scales and, where there are any, zero points; and their bytes."""
        key = _key(weight, form)
        if packed is None:
            return self._ready[key], 0
        stem = f"{weight.name}/{'rows' if weight.looked_up else 'int'}{form.bits}x{form.block}@{len(self._ready)}"
        integers = packed.packed
        if weight.looked_up:
            width = self.shape(weight)[0] * form.bits // 8
            integers = np.ascontiguousarray(integers.reshape(len(integers), -1)[:, :width])
        arrays = {stem: integers, f"{stem}/scales": packed.scales}
        if packed.zero_points is not None:
            arrays[f"{stem}/zero_points"] = packed.zero_points
        for name, array in arrays.items():
            self._add(numpy_helper.from_array(array, name))
        self._ready[key] = list(arrays)
        return list(arrays), sum(array.nbytes for array in arrays.values())

    def _bias(self, gemm: onnx.NodeProto) -> str:
        """What a Gemm adds, times what it is scaled by."""
        beta, bias = _told(gemm, "beta", 1.0), gemm.input[_BIAS]
        if beta == 1.0:
            return str(bias)
        values = array_of(self._constants[bias], self._folder)
        scaled = f"{bias}/times{beta:g}"
        self._add(numpy_helper.from_array(values * np.asarray(beta, values.dtype), scaled))
        return scaled

    def _add(self, made: onnx.TensorProto) -> None:
        self._made[made.name] = made if self._data is None else self._data.put(made)

    def _taken(self, constant: onnx.TensorProto) -> onnx.TensorProto:
        """A constant that stays as it is; one in a file goes into the new one."""
        if self._data is None or not is_beside(constant):
            return constant
        return self._data.take(constant, self._folder)

    def dequantize(self, weight: Weight, form: Form, packed: Packed | None) -> int:
        """Put a DequantizeLinear of int4 blocks before the node, as TensorRT takes them; gives the new bytes."""
        node = onnx.NodeProto()
        node.CopyFrom(weight.node)
        turned = bool(_told(node, "transB", 0))
        # The weight has been multiplied by it.
        plain = [each for each in node.attribute if each.name != "alpha"]
        node.ClearField("attribute")
        node.attribute.extend(plain)
        if packed is None:
            node.input[1] = self._ready[_key(weight, form)][0]
            self._instead[weight.place] = [node]
            return 0
        assert packed.zero_points is None, "TensorRT has no zero points"
        size, count = self.shape(weight)
        # 0 to 15 about 8 become -8 to 7.
        signed = whole_numbers(packed, size, form) ^ np.uint8(form.middle)
        dims = (count, size) if turned else (size, count)
        numbers = np.ascontiguousarray(signed if turned else signed.T).reshape(-1)
        numbers = np.pad(numbers, (0, numbers.size % 2))
        halves = numbers[::2] | numbers[1::2] << np.uint8(4)
        scales = np.ascontiguousarray(packed.scales if turned else packed.scales.T)
        stem = f"{weight.name}/int4x{form.block}@{len(self._ready)}"
        self._add(helper.make_tensor(stem, TensorProto.INT4, dims, halves.tobytes(), raw=True))
        self._add(numpy_helper.from_array(scales, f"{stem}/scales"))
        told = {"axis": int(turned), "block_size": form.block}
        name = f"{node.name or node.output[0]}_weight"
        again = helper.make_node("DequantizeLinear", [stem, f"{stem}/scales"], [f"{stem}/floats"], name=name, **told)
        node.input[1] = again.output[0]
        self._ready[_key(weight, form)] = [again.output[0]]
        self._instead[weight.place] = [again, node]
        return int(halves.nbytes + scales.nbytes)

    def finish(self) -> None:
        """Write the nodes; drop constants and turns that nothing reads any more."""
        graph = self.proto.graph
        nodes = [made for at, node in enumerate(graph.node) for made in self._instead.get(at, [node])]
        kept: list[onnx.NodeProto] = []
        read = {each.name for each in graph.output}
        # From the end: what stands before something that is dropped is dropped too.
        for node in reversed(nodes):
            if node.op_type not in _ON_THE_WAY or node.output[0] in read:
                kept.append(node)
                read.update(_read([node]))
        nodes = kept[::-1]
        rest = onnx.GraphProto(
            node=nodes,
            initializer=[
                *(self._taken(each) for each in graph.initializer if each.name in read),
                *(each for each in self._made.values() if each.name in read),
            ],
            input=[each for each in graph.input if each.name in read or each.name not in self._constants],
        )
        for field in ("node", "initializer", "input"):
            graph.ClearField(field)
            getattr(graph, field).extend(getattr(rest, field))
        versions = {each.domain: each for each in self.proto.opset_import}
        if any(node.domain == _DOMAIN for node in nodes) and _DOMAIN not in versions:
            self.proto.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
        if any(node.op_type == "DequantizeLinear" for node in nodes):
            self.proto.ir_version = max(self.proto.ir_version, _INT4_IR)


def _key(weight: Weight, form: Form) -> tuple[Any, ...]:
    """What two nodes that can share a weight in blocks have in common."""
    told = (_told(weight.node, "transB", 0), _told(weight.node, "alpha", 1.0))
    return weight.name, weight.looked_up, weight.turned, told, form


def _size(constant: onnx.TensorProto) -> int:
    return int(np.prod(constant.dims)) * int(helper.tensor_dtype_to_np_dtype(constant.data_type).itemsize)


def _as(before: onnx.NodeProto, kind: str, inputs: Sequence[str], told: dict[str, int]) -> onnx.NodeProto:
    """A node of ONNX Runtime's own with the name and the results of this one."""
    return helper.make_node(kind, inputs, list(before.output), name=before.name, domain=_DOMAIN, **told)


def _told(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """An attribute of a node."""
    return next((helper.get_attribute_value(each) for each in node.attribute if each.name == name), default)


def _read(nodes: Iterable[onnx.NodeProto]) -> Iterator[str]:
    """All that nodes read, inside of their graphs too."""
    for node in nodes:
        yield from node.input
        for attribute in node.attribute:
            for each in (attribute.g, *attribute.graphs):
                yield from _read(each.node)
                yield from (output.name for output in each.output)
