"""A Q/DQ graph as a torch module: forwards it is the graph itself, backwards its rounding lets gradients through.

Weights and biases are learnt, and the steps of all pairs where that is wanted; what was learnt is written back into
the graph in the very types that it has there. Nodes, and where the pairs stand, stay as they are.

Sources: Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference,
CVPR 2018, section 3 (fake quantization); Esser et al., Learned Step Size Quantization, ICLR 2020, equations 1 to 3 (the
gradient of a step); Jain et al., Trained Quantization Thresholds, MLSys 2020, section 3.3 (its logarithm is learnt, so
that one learning rate fits all steps).
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper

from mlpack.quantization.layer_operators import refused
from mlpack.quantization.operators import OPERATORS
from mlpack.quantization.qdq_graph import QdqGraph
from mlpack.quantization.straight_through import ENDS, Rounded, along, dequantized, quantized

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mlpack.quantization.operators import Operator

# The inputs that are learnt where they are constants. Of an Add only vectors: a table of positions is no bias.
_LEARNT = {
    "Conv": (1, 2), "ConvTranspose": (1, 2), "Gemm": (1, 2), "MatMul": (0, 1), "Add": (0, 1),
    "LayerNormalization": (1, 2),
}  # fmt: skip
_BIASED = {"Conv", "ConvTranspose", "Gemm"}
_PAIR = {"QuantizeLinear", "DequantizeLinear"}
_STEP, _ZERO = 1, 2
_BIASED_AT = 2
_ALIKE = 1e-3
_LEAST = 1e-9
# Steps are learnt a hundred times as fast as weights: Jain et al. take 1e-2, and a range may be off by half of itself.
_PACE = 100.0


class Trainable(torch.nn.Module):  # type: ignore[misc] # torch is opaque to mypy here
    """The graph. `forward` takes tensors by the names of its inputs and gives tensors by those of its outputs.

    Raises:
        StageFailed: an operator cannot be trained through, or nothing of the graph can learn.
    """

    def __init__(self, proto: onnx.ModelProto, *, learn_ranges: bool) -> None:
        super().__init__()
        graph = QdqGraph(proto)
        self._proto = proto
        self._nodes = list(_nodes(proto))
        self._outputs = [each.name for each in proto.graph.output]
        # Plain tensors: what is no parameter need not be kept with every checkpoint.
        self._fixed = {name: torch.tensor(_array(each)) for name, each in graph.constants.items()}
        self._learnt = list(_learnt(graph, self._fixed))
        self._of_biases = _of_biases(graph, self._learnt) if learn_ranges else {}
        self._steps = [name for name in _steps(graph, self._learnt) if name not in self._of_biases]
        if not learn_ranges:
            self._steps = []
        if not self._learnt:
            raise refused("a graph without weights of its own")
        self.weights = torch.nn.ParameterList(each.start(self._fixed) for each in self._learnt)
        self.factors = torch.nn.ParameterList(torch.zeros_like(self._fixed[name]) for name in self._steps)

    def forward(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Node by node; what no node reads any more is given back."""
        values = {**self._constants(), **inputs}
        for node in self._nodes:
            values.update(zip(node.makes, node.run(values), strict=False))
            for name in node.last_reads:
                del values[name]
        return {name: values[name] for name in self._outputs}

    def tensors(self) -> list[str]:
        """All that its nodes make."""
        return [name for node in self._nodes for name in node.makes if name]

    def farthest(self, seen: Mapping[str, np.ndarray]) -> tuple[float, str]:
        """Every node alone, given what another runtime computed before it: by how much the worst one differs.

        Relative L2, and the node's operator. `seen` has the graph's inputs and all `tensors` of a run. The graph as a
        whole tells less: where a last bit decides how a value is rounded, all that follows is rounded otherwise.
        """
        worst = (0.0, "")
        with torch.no_grad():
            values = {**self._constants(), **{name: torch.tensor(array) for name, array in seen.items()}}
            for node in self._nodes:
                for name, made in zip(node.makes, node.run(values), strict=False):
                    if name:
                        worst = max(worst, (_distance(made, values[name]), node.kind))
        return worst

    def written(self) -> onnx.ModelProto:
        """The graph with what was learnt."""
        made = onnx.ModelProto()
        made.CopyFrom(self._proto)
        with torch.no_grad():
            values = self._constants()
        changed = {*(each.constant for each in self._learnt), *self._steps, *self._of_biases}
        for each in made.graph.initializer:
            if each.name in changed:
                dtype = helper.tensor_dtype_to_np_dtype(each.data_type)
                each.CopyFrom(numpy_helper.from_array(values[each.name].detach().numpy().astype(dtype), each.name))
        return made

    def _constants(self) -> dict[str, torch.Tensor]:
        """All constants of the graph as they are now; integers that are learnt are floats, each a whole number."""
        values = dict(self._fixed)
        for name, factor in zip(self._steps, self.factors, strict=True):
            values[name] = self._fixed[name] * (_PACE * factor).exp()
        for name, (of_input, of_weight, ratio) in self._of_biases.items():
            values[name] = (values[of_input] * values[of_weight] * ratio).reshape(self._fixed[name].shape)
        for each, parameter in zip(self._learnt, self.weights, strict=True):
            values[each.constant] = each.now(parameter, values)
        return values


@dataclass(frozen=True)
class _Node:
    """A node, ready to be run. `last_reads` are the tensors that no later node reads."""

    kind: str
    operator: Operator
    told: dict[str, Any]
    reads: tuple[str, ...]
    makes: tuple[str, ...]
    last_reads: tuple[str, ...]

    def run(self, values: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Its outputs."""
        given = [values[name] if name else None for name in self.reads]
        try:
            made = self.operator(self.told, *given)
        except (KeyError, TypeError) as error:
            # Older opsets have as attributes what is an input today, and the other way round.
            raise refused(f"{self.kind} as this graph's opset has it") from error
        made = made if isinstance(made, tuple) else (made,)
        if len(made) < len(self.makes):
            raise refused(f"{self.kind} with {len(self.makes)} outputs")
        return made


@dataclass(frozen=True)
class _Learnt:
    """A constant that is learnt. With `step` and `zero`, the constants of its DequantizeLinear, it is of integers.

    It is learnt as what its integers stand for. `ends` bound them.
    """

    constant: str
    step: str = ""
    zero: str = ""
    axis: int = 0
    ends: tuple[float, float] = (0.0, 0.0)

    def start(self, values: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """What it is in the graph."""
        if not self.step:
            return values[self.constant].clone()
        return dequantized({"axis": self.axis}, values[self.constant], values[self.step], values.get(self.zero))

    def now(self, parameter: torch.Tensor, values: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """What the graph's constant becomes."""
        if not self.step:
            return parameter
        step, zero = along(self.axis, parameter, values[self.step], values.get(self.zero))
        rounded: torch.Tensor = Rounded.apply(parameter, step, zero, *self.ends)
        return rounded


def _distance(one: torch.Tensor, other: torch.Tensor) -> float:
    """Relative L2; infinite where shapes differ."""
    if one.shape != other.shape:
        return math.inf
    first, second = one.to(torch.float64), other.to(torch.float64)
    same = (first == second) | (first.isnan() & second.isnan())
    apart = torch.where(same, 0.0, first - second).norm()
    return float(apart / second.norm().clamp_min(_LEAST)) if apart else 0.0


_QDQ: dict[str, Operator] = {"QuantizeLinear": quantized, "DequantizeLinear": dequantized}


def _nodes(proto: onnx.ModelProto) -> Iterator[_Node]:
    known: dict[str, Operator] = {**OPERATORS, **_QDQ}
    nodes = proto.graph.node
    strange = Counter(node.op_type for node in nodes if node.domain not in {"", "ai.onnx"} or node.op_type not in known)
    if strange:
        raise refused(f"operator {next(iter(strange))}")
    last = {name: at for at, node in enumerate(nodes) for name in node.input if name}
    for output in proto.graph.output:
        last.pop(output.name, None)
    for at, node in enumerate(nodes):
        makes = tuple(node.output)
        while makes and not makes[-1]:
            makes = makes[:-1]
        yield _Node(
            kind=node.op_type,
            operator=known[node.op_type],
            told=_told(node),
            reads=tuple(node.input),
            makes=makes,
            last_reads=tuple(dict.fromkeys(name for name in node.input if last.get(name) == at)),
        )


def _told(node: onnx.NodeProto) -> dict[str, Any]:
    """Its attributes. Before opset 18 a Split did not say into how many parts: into as many as it has outputs."""
    told = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    return {"num_outputs": len(node.output), **told} if node.op_type == "Split" else told


def _array(constant: onnx.TensorProto) -> np.ndarray:
    array = np.asarray(numpy_helper.to_array(constant))
    if array.dtype.kind not in "fiub":
        raise refused(f"a constant of {array.dtype}")
    return array


def _learnt(graph: QdqGraph, values: Mapping[str, torch.Tensor]) -> Iterator[_Learnt]:
    """Every constant once, in the order of the graph."""
    found: set[str] = set()
    for node in graph.proto.graph.node:
        for at in _LEARNT.get(node.op_type, ()):
            name = node.input[at] if at < len(node.input) else ""
            constant = graph.unquantized(name) if name else ""
            if constant in found or constant not in graph.constants or values[constant].numel() == 1:
                continue
            if node.op_type == "Add" and values[constant].ndim != 1:
                continue
            found.add(constant)
            if values[constant].is_floating_point():
                yield _Learnt(constant)
            elif graph.made_by(name, "DequantizeLinear") and _read_alike(graph, constant):
                yield _of_integers(graph.makers[name], values)


def _read_alike(graph: QdqGraph, constant: str) -> bool:
    """Whether all that read these integers take them for the same numbers."""
    return len({(node.op_type, *node.input) for node in graph.readers[constant]}) == 1


def _of_integers(node: onnx.NodeProto, values: Mapping[str, torch.Tensor]) -> _Learnt:
    """What this DequantizeLinear reads. Symmetric weights keep to the integers that they have: 7 bits stay 7 bits."""
    integers = values[node.input[0]]
    zero = node.input[_ZERO] if len(node.input) > _ZERO else ""
    ends = ENDS[integers.dtype]
    if integers.dtype == torch.int8 and (not zero or not values[zero].any()):
        most = float(integers.to(torch.float32).abs().max())
        ends = (-most, most)
    axis = next((each.i for each in node.attribute if each.name == "axis"), 1)
    return _Learnt(node.input[0], step=node.input[_STEP], zero=zero, axis=axis, ends=ends)


def _of_biases(graph: QdqGraph, learnt: Sequence[_Learnt]) -> dict[str, tuple[str, str, float]]:
    """The steps of int32 biases with those of input and weight, whose product they are, and what is left over.

    Integer kernels add such a bias to their sums as it is: its step is no number of its own.
    """
    integers = {each.constant: each for each in learnt if each.step}
    found = {}
    for node in graph.proto.graph.node:
        if node.op_type not in _BIASED or len(node.input) <= _BIASED_AT:
            continue
        bias = integers.get(graph.unquantized(node.input[_BIASED_AT]))
        pairs = [graph.makers.get(name) for name in node.input[:_BIASED_AT]]
        if bias is None or any(pair is None or pair.op_type != "DequantizeLinear" for pair in pairs):
            continue
        of_input, of_weight = (pair.input[_STEP] for pair in pairs if pair is not None)
        if not {of_input, of_weight} <= graph.constants.keys():
            continue
        rest = (graph.array(bias.step) / (graph.array(of_input) * graph.array(of_weight))).reshape(-1)
        if np.allclose(rest, rest[0], rtol=_ALIKE):
            found[bias.step] = of_input, of_weight, float(rest[0])
    return found


def _steps(graph: QdqGraph, learnt: Sequence[_Learnt]) -> list[str]:
    """The steps of activations and of what is learnt, each once: pairs that share one go on sharing it."""
    quantizers = [node.input[_STEP] for node in graph.proto.graph.node if node.op_type == "QuantizeLinear"]
    those = dict.fromkeys([*quantizers, *(each.step for each in learnt if each.step)])
    return [name for name in those if name in graph.constants]
