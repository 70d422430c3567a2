"""Adaptive rounding: each weight goes up or down, whichever leaves its layer's answers nearer to the float ones.

Source: Nagel et al., Up or Down? Adaptive Rounding for Post-Training Quantization, ICML 2020. The objective is the
paper's layer-wise one, dᵀHd per output channel with H = E[xxᵀ] (equation 13); it is descended weight by weight, as H
alone is kept of the activations, where the paper relaxes it and learns by gradients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import numpy_helper

from mlpack.quantization.qdq_graph import QdqGraph, quantized_products
from mlpack.quantization.stream import stream

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from mlpack.quantization.shown import Arrays

# Of each run so many rows of a product's input, patches of a convolution's, are looked at.
ROWS = 1024
_SWEEPS = 4
# Added to the diagonal, as a share of its mean: directions that were never seen keep their nearest rounding.
_DAMPING = 0.01
_DIMS = {"Conv": 4}


def round_adaptively(
    reference: onnx.ModelProto, quantized: Path, batches: Iterable[Arrays], *, threads: int, cut: bool, seed: int
) -> list[str]:
    """Round, in the file, the weights of every convolution, Gemm and MatMul anew; the names of their nodes.

    Scales stay as they are, and so do weights that several nodes read. Each layer is seen alone, with inputs that the
    float graph computes, quantized. A layer with K weights per output channel takes memory for K × K numbers.

    Args:
        reference: the float graph that was quantized.
        quantized: the Q/DQ graph; what it keeps in other files stays there, but for these weights.
        batches: calibration feeds; memory does not grow with their number.
        threads: of ONNX Runtime.
        cut: whether batches may be run in parts.
        seed: of the rows that are looked at.
    """
    graph = QdqGraph(onnx.load(quantized, load_external_data=False), quantized.parent)
    layers = list(_layers(QdqGraph(reference), graph))
    if not layers:
        return []
    random = np.random.default_rng(seed)

    def see(values: Arrays) -> None:
        for layer in layers:
            layer.see(values[layer.source], random)

    seen = dict.fromkeys(layer.source for layer in layers)
    stream(reference, list(seen), batches, see, threads=threads, cut=cut)
    for layer in layers:
        name = graph.unquantized(layer.node.input[1])
        kept = layer.written(_descended(layer.exact, layer.most, layer.moments))
        if graph.constants[name].data_type == onnx.TensorProto.FLOAT:
            # Behind a pair of its own it is a float, on the grid of the pair.
            kept = kept * layer.scale
        dtype = onnx.helper.tensor_dtype_to_np_dtype(graph.constants[name].data_type)
        graph.constants[name].CopyFrom(numpy_helper.from_array(kept.astype(dtype), name))
    onnx.save(graph.proto, quantized)
    return [layer.node.name for layer in layers]


@dataclass
class _Layer:
    """A product whose weights can be rounded.

    `exact` are its weights in steps, [groups, output channels of each, K]; `most` is the largest integer, `scale` the
    steps, as they multiply a weight of `shape`. `step`, `zero` and `ends` quantize its input, `moments` are the sums
    of xxᵀ, [groups, K, K].
    """

    node: onnx.NodeProto
    source: str
    exact: np.ndarray
    most: int
    scale: np.ndarray
    shape: tuple[int, ...]
    step: float
    zero: int
    ends: tuple[int, int]
    moments: np.ndarray

    def see(self, source: np.ndarray, random: np.random.Generator) -> None:
        """Rows of the product's input, quantized as the product reads it."""
        rows = (
            _patches(self.node, source, self.shape, random) if self.node.op_type == "Conv" else _lines(source, random)
        )
        rows = (np.clip(np.rint(rows / self.step) + self.zero, *self.ends) - self.zero) * self.step
        # [rows, groups × K]: what each group reads.
        parts = rows.reshape(len(rows), len(self.exact), -1).transpose(1, 2, 0).astype(np.float32)
        self.moments += parts @ parts.transpose(0, 2, 1)

    def written(self, steps: np.ndarray) -> np.ndarray:
        """Steps in the shape of the weight."""
        if self.node.op_type == "Conv" or _turned(self.node):
            return steps.reshape(self.shape)
        return steps.reshape(self.shape[::-1]).T.copy()


def _layers(before: QdqGraph, graph: QdqGraph) -> Iterator[_Layer]:
    """The products that can be rounded: they alone read their weights, in two dimensions."""
    for node, twin in quantized_products(before, graph):
        name, constant = graph.unquantized(node.input[1]), before.constants.get(twin.input[1])
        alone = len(graph.readers[name]) == len(graph.readers[node.input[1]]) == 1
        if constant is None or not alone or not graph.made_by(node.input[0], "DequantizeLinear"):
            continue
        if node.op_type == "ConvTranspose" or _pads_itself(node) or len(constant.dims) != _DIMS.get(node.op_type, 2):
            continue
        weight = numpy_helper.to_array(constant).astype(np.float32)
        first = node.op_type == "Conv" or _turned(node)
        rows = (weight if first else weight.T).reshape(graph.outputs(node), -1)
        scale = graph.scale(node.input[1], len(rows)).astype(np.float32)
        groups = next((each.i for each in node.attribute if each.name == "group"), 1)
        exact = (rows / scale[:, None]).reshape(groups, len(rows) // groups, -1)
        pair = graph.makers[node.input[0]]
        zero = graph.array(pair.input[2])
        yield _Layer(
            node=node,
            source=twin.input[0],
            exact=exact,
            most=int(np.abs(np.rint(exact)).max()),
            scale=scale.reshape([-1, *[1] * (weight.ndim - 1)] if first else [1, -1]),
            shape=weight.shape,
            step=float(graph.array(pair.input[1])),
            zero=int(zero),
            ends=(np.iinfo(zero.dtype).min, np.iinfo(zero.dtype).max),
            moments=np.zeros((groups, exact.shape[2], exact.shape[2]), np.float32),
        )


def _pads_itself(node: onnx.NodeProto) -> bool:
    return any(each.name == "auto_pad" and each.s not in {b"", b"NOTSET"} for each in node.attribute)


def _lines(source: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Some rows of a matrix, or of a stack of them."""
    flat = source.reshape(-1, source.shape[-1])
    return flat if len(flat) <= ROWS else flat[random.choice(len(flat), ROWS, replace=False)]


def _patches(
    node: onnx.NodeProto, source: np.ndarray, weight: tuple[int, ...], random: np.random.Generator
) -> np.ndarray:
    """Some of what a two-dimensional convolution reads for one output: [rows, channels × height × width]."""
    told = {each.name: list(each.ints) for each in node.attribute}
    top, left, bottom, right = told.get("pads") or [0, 0, 0, 0]
    (down, across), (stride_y, stride_x) = told.get("dilations") or [1, 1], told.get("strides") or [1, 1]
    padded = np.pad(source, ((0, 0), (0, 0), (top, bottom), (left, right)))
    reach = ((weight[2] - 1) * down + 1, (weight[3] - 1) * across + 1)
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=(2, 3))
    windows = windows[:, :, ::stride_y, ::stride_x, ::down, ::across]
    samples, _, height, width = windows.shape[:4]
    count = samples * height * width
    which = np.arange(count) if count <= ROWS else random.choice(count, ROWS, replace=False)
    sample, y, x = np.unravel_index(which, (samples, height, width))
    return windows[sample, :, y, x].reshape(len(which), -1)


def _descended(exact: np.ndarray, most: int, moments: np.ndarray) -> np.ndarray:
    """The integers beside `exact`: from the nearest on, each goes to its other side while dᵀHd falls by it."""
    size = exact.shape[2]
    diagonal = np.einsum("gkk->gk", moments).mean(axis=1)
    hessian = moments + (_DAMPING * diagonal + 1e-12)[:, None, None] * np.eye(size, dtype=np.float32)
    steps = np.clip(np.rint(exact), -most, most)
    other = np.clip(np.where(steps > exact, steps - 1, steps + 1), -most, most)
    slope = (steps - exact) @ hessian
    for _ in range(_SWEEPS):
        flips = 0
        for k in range(size):
            move = other[:, :, k] - steps[:, :, k]
            gain = 2 * move * slope[:, :, k] + move**2 * hessian[:, k, k][:, None]
            group, row = np.nonzero(gain < 0)
            move = move[group, row]
            flips += len(row)
            other[group, row, k] -= move
            steps[group, row, k] += move
            slope[group, row] += move[:, None] * hessian[group, k]
        if not flips:
            break
    return np.asarray(steps)


def _turned(node: onnx.NodeProto) -> bool:
    return any(each.name == "transB" and each.i == 1 for each in node.attribute)
