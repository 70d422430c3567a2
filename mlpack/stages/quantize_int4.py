"""The int4 of the quantize stage: weights in blocks of four bits, the sensitive ones in eight."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from mlpack.core.external_data import load_whole
from mlpack.errors import StageFailed, UsageError
from mlpack.quantization.beside import data_file
from mlpack.quantization.blocks import Form, extremes, magnitudes, quantize_blocks
from mlpack.quantization.gptq import hessians, quantize_by_answers
from mlpack.quantization.half_quadratic import half_quadratic
from mlpack.quantization.newer_opset import newer
from mlpack.quantization.rules import rules_for
from mlpack.quantization.weight_only import BLOCKS_OPSET, WeightGraph
from mlpack.stages.calibration_rows import Rows
from mlpack.stages.module_names import nodes_within

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlpack.core.model import Model
    from mlpack.core.stage import Job
    from mlpack.quantization.blocks import Find, Packed
    from mlpack.quantization.weight_only import Weight
    from mlpack.stages.quantize import Quantize

_BITS = {4: "int4", 8: "int8"}
_HAS_FLOAT_ACTIVATIONS = "onnxruntime"
_TABLE_BLOCKS = (128, 64, 32, 16)


def weight_only(model: Model, job: Job, options: Quantize) -> list[dict[str, Any]]:
    """Write the graph with its constant matrices in blocks; gives a row for each: what became of it, and why not.

    Where constants lie beside the graph one of them at a time is in memory, before and after.

    Raises:
        UsageError: there are no calibration rows for GPTQ, nothing of the graph lies in what is excluded, or no weight
            in what is to be wide.
        StageFailed: no matrix of this graph can be kept so, or GPTQ would run what is too large for the memory.
    """
    if model.on_disk and options.method == "gptq":
        raise StageFailed(
            "gptq runs the float graph, whose weights stay on the disk", "rtn and hqq look at weights alone"
        )
    proto = onnx.load(model.entry_path, load_external_data=False)
    if rules_for(job.target.rules).explicit_weights:
        proto = newer(proto, BLOCKS_OPSET)
    beside = len(list(model.files())) > 1
    with data_file(job.out / f"{model.entry}.data", wanted=beside) as data:
        rows = _in_blocks(WeightGraph(proto, model.path, data), model, job, options)
    onnx.save(proto, job.out / model.entry)
    return rows


def _in_blocks(graph: WeightGraph, model: Model, job: Job, options: Quantize) -> list[dict[str, Any]]:
    work = _Work(graph, model, job, options)
    rows = {weight.place: work.left(weight) for weight in work.weights}
    chosen = [weight for weight in work.weights if not rows[weight.place]["why"]]
    if not chosen:
        reasons = "; ".join(dict.fromkeys(row["why"] for row in rows.values())) or "it has none"
        raise StageFailed(
            f"no constant matrix of this graph goes into blocks of four bits: {reasons}",
            "leave the numerics flag out: mlpack then takes the fastest model that it finds",
        )
    for done, (weight, hessian) in enumerate(work.with_hessians(chosen)):
        job.say("rounding weights", done, len(chosen))
        rows[weight.place] |= work.keep(weight, hessian)
    graph.finish()
    return list(rows.values())


def served_by(model: Model, job: Job, options: Quantize) -> str | None:
    """The one backend that computes as the options say, None: any. OpenVINO multiplies blocks with int8.

    Raises:
        StageFailed: an earlier step made a graph for another one.
    """
    if options.activations != "float" or rules_for(job.target.rules).explicit_weights:
        return model.only
    if model.only not in {None, _HAS_FLOAT_ACTIVATIONS}:
        raise StageFailed(
            f"only {model.only} runs this graph, and only {_HAS_FLOAT_ACTIVATIONS} multiplies blocks with floats",
            "leave quantize.activations out",
        )
    return _HAS_FLOAT_ACTIVATIONS


class _Work:
    """One graph and what its weights are to become."""

    def __init__(self, graph: WeightGraph, model: Model, job: Job, options: Quantize) -> None:
        self.graph, self._model, self._job, self._options = graph, model, job, options
        assert options.block is not None, "options are as the target has them"
        self._explicit = rules_for(job.target.rules).explicit_weights
        self._forms = {bits: Form(options.block, options.symmetric, bits) for bits in _BITS}
        self._start: Find = magnitudes if self._explicit else extremes
        self.weights = list(graph.weights())
        self._excluded = set(nodes_within(graph.proto, options.exclude, "exclude"))
        self._wide = set(nodes_within(graph.proto, options.wide, "wide"))
        if options.wide and not self._wide & {weight.node.name for weight in self.weights}:
            raise UsageError(
                f"quantize.wide: no weight that goes into blocks lies in {', '.join(options.wide)}",
                "name the product or the look-up that reads the weight, or its module",
            )
        self._least = options.least_share * graph.float_bytes

    def left(self, weight: Weight) -> dict[str, Any]:
        """The row of a weight as long as it is left in float, with the reason where it has to be."""
        size, count = self.graph.shape(weight)
        before = self.graph.size_bytes(weight)
        return {
            "layer": weight.node.name,
            "operator": weight.node.op_type,
            "numerics": "float",
            "k": size,
            "n": count,
            "bytes_before": before,
            "bytes": before,
            "why": self._reason(weight, size, before),
        }

    def _reason(self, weight: Weight, size: int, size_bytes: int) -> str:
        """Why a weight cannot or need not be in blocks; empty: it goes there."""
        table, name, block = weight.looked_up, weight.node.name, self._forms[4].block
        asked = table and self._options.embeddings is True
        reasons = {
            "excluded": name in self._excluded,
            "embeddings: false": table and self._options.embeddings is False,
            "TensorRT has no blocks of eight bits": self._explicit and name in self._wide,
            f"its {size} inputs are not whole blocks of {block}": self._explicit and size % block,
            "its rows are not whole bytes": table and size % 2,
            f"less than {self._options.least_share:.2%} of the weights": size_bytes < self._least and not asked,
            "blocks would take as many bytes": name not in self._wide and self._bytes(weight) >= size_bytes,
        }
        found = next((reason for reason, holds in reasons.items() if holds), "")
        return found or ("" if np.isfinite(self.graph.matrix(weight)).all() else "it has values that are no numbers")

    def _bytes(self, weight: Weight) -> int:
        """What a weight takes in blocks of four bits."""
        form, (size, count) = self._form_of(weight, 4), self.graph.shape(weight)
        blocks = -(-size // form.block)
        whole = size if self._explicit or weight.looked_up else blocks * form.block
        points = 0 if form.symmetric else -(-blocks // 2)
        return count * (-(-whole // 2) + blocks * self.graph.scale_bytes(weight) + points)

    def with_hessians(self, chosen: list[Weight]) -> Iterator[tuple[Weight, np.ndarray | None]]:
        """The weights, those that GPTQ rounds with the Hessian of their inputs."""
        multiplied = [weight for weight in chosen if not weight.looked_up]
        if self._options.method != "gptq":
            yield from ((weight, None) for weight in chosen)
            return
        yield from ((weight, None) for weight in chosen if weight.looked_up)
        rows = Rows(self._model, self._job, self._options)
        widths = {weight.node.input[0]: self.graph.shape(weight)[0] for weight in multiplied}
        batches = partial(rows.batches, "gathering Hessians")
        # With all its constants, since it is run.
        whole = load_whole(self._model.entry_path)
        for found in hessians(whole, widths, batches, threads=self._job.threads, cut=self._model.dynamic_batch):
            for weight in multiplied:
                hessian = found.get(weight.node.input[0])
                if hessian is not None:
                    yield weight, hessian

    def keep(self, weight: Weight, hessian: np.ndarray | None) -> dict[str, Any]:
        """Put a weight in blocks; what its row says then."""
        bits = 8 if weight.node.name in self._wide else 4
        form = self._form_of(weight, bits)
        packed = None if self.graph.known(weight, form) else self._packed(weight, form, hessian)
        if self._explicit:
            new = self.graph.dequantize(weight, form, packed)
        else:
            new = self.graph.keep(weight, form, packed, int8_activations=self._options.activations == "int8")
        return {"numerics": _BITS[bits], "bytes": new}

    def _form_of(self, weight: Weight, bits: int) -> Form:
        """A table's as OpenVINO looks them up: blocks that divide its rows, and zero points that fill whole bytes."""
        form, width = self._forms[bits], self.graph.shape(weight)[0]
        if not weight.looked_up:
            return form
        block = next((size for size in _TABLE_BLOCKS if size <= form.block and width % size == 0), form.block)
        return replace(form, block=block, symmetric=form.symmetric or -(-width // block) % 2 == 1)

    def _packed(self, weight: Weight, form: Form, hessian: np.ndarray | None) -> Packed:
        options, matrix = self._options, self.graph.matrix(weight)
        find = self._start if options.method == "rtn" else partial(half_quadratic, start=self._start)
        if hessian is None:
            return quantize_blocks(matrix, form, find)
        if not np.isfinite(hessian).all():
            raise StageFailed(
                f"{weight.node.name} reads values that are no numbers on the calibration rows",
                f"leave it in float: --set quantize.exclude=[{weight.node.name}]",
            )
        return quantize_by_answers(matrix, hessian, form, find, damping=options.damping, act_order=options.act_order)
