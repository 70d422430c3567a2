"""The int8 of the quantize stage: ONNX Runtime's quantizers, driven by the target's rules."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.calibrate import CalibraterBase, TensorsData, save_tensors_data
from onnxruntime.quantization.quant_utils import load_model_with_shape_infer
from onnxruntime.quantization.shape_inference import quant_pre_process

from mlpack.errors import StageFailed, UsageError
from mlpack.quantization.bias import correct_biases
from mlpack.quantization.calibrate import calibrate
from mlpack.quantization.equalize import equalized
from mlpack.quantization.lookups import quantize_lookups
from mlpack.quantization.observers import observer
from mlpack.quantization.placement import between_convolutions, pair_summands, signed_factors, spare_float_readers
from mlpack.quantization.range_table import RangeTable, digest_of_weights, read_ranges
from mlpack.quantization.rounding import round_adaptively
from mlpack.quantization.rules import rules_for
from mlpack.quantization.smooth import smoothed
from mlpack.stages.calibration_rows import Rows
from mlpack.stages.kept_ranges import kept_ranges
from mlpack.stages.module_names import lies_in, nodes_within

if TYPE_CHECKING:
    from mlpack.core.model import Model
    from mlpack.core.stage import Job
    from mlpack.quantization.rules import Rules
    from mlpack.stages.quantize import Quantize

_WEIGHTED = ["Conv", "ConvTranspose", "MatMul", "Gemm"]
# A pair between a convolution and its activation would spend most of its steps on what the activation cuts away.
_ABSORBED = ["Relu", "Clip"]
# Gather: embeddings, often most of a language model's bytes.
_DYNAMIC = ["MatMul", "Gemm", "Gather", "LSTM", "GRU", "Attention"]
_TYPES = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}


def dynamic(model: Model, job: Job, options: Quantize) -> None:
    """Int8 weights, activations quantized by the range of each batch as it comes.

    Raises:
        StageFailed: the quantizer refuses the graph.
        UsageError: nothing of the graph lies in what is to be excluded.
    """
    logging.disable(logging.WARNING)
    job.say("quantizing, dynamic ranges")
    with tempfile.TemporaryDirectory(dir=job.out.parent) as folder:
        prepared = _prepared(model, Path(folder))
        _unshare_gemm_weights(prepared, external=_external(model))
        _guarded(
            quantize_dynamic,
            prepared,
            job.out / model.entry,
            op_types_to_quantize=_DYNAMIC,
            nodes_to_exclude=_excluded(prepared, options.exclude),
            per_channel=options.per_channel,
            reduce_range=rules_for(job.target.rules).reduce_range,
            weight_type=QuantType.QInt8,
            use_external_data_format=_external(model),
            extra_options={"DefaultTensorType": TensorProto.FLOAT, "MatMulConstBOnly": True},
        )


def static(model: Model, job: Job, options: Quantize) -> RangeTable:
    """Q/DQ with ranges found on the calibration rows, or with those of an earlier run; gives the ranges.

    A node that reads or makes values which stand for infinity, as an attention mask does, stays in float: no eight
    bits hold them beside others.

    Raises:
        UsageError: there are no calibration rows, ranges of another graph were handed over, or nothing of the graph
            lies in what is to be excluded.
        StageFailed: the quantizer refuses the graph.
    """
    logging.disable(logging.WARNING)
    rules = rules_for(job.target.rules)
    extra: dict[str, Any] = {
        "ActivationSymmetric": rules.symmetric_activations,
        "WeightSymmetric": True,
        "MatMulConstBOnly": options.operators == "weighted",
        "DefaultTensorType": TensorProto.FLOAT,
    }
    if options.operators == "weighted":
        extra["OpTypesToExcludeOutputQuantization"] = list(rules.float_results)
    if rules.explicit_weights:
        extra |= {"AddQDQPairToWeight": True, "QuantizeBias": False, "DedicatedQDQPair": True}
    operators = [*_WEIGHTED, *_ABSORBED] if options.operators == "weighted" else None
    with tempfile.TemporaryDirectory(dir=job.out.parent) as folder:
        prepared = _prepared(model, Path(folder))
        if options.equalize:
            _equalize(prepared, model, job)
        if options.smooth:
            _smooth(prepared, model, job, options)
        table = _ranges(prepared, operators, model, job, options)
        handed = Path(folder) / "ranges.json"
        save_tensors_data(
            TensorsData(
                CalibrationMethod.MinMax,
                {each.tensor: (np.float32(each.low), np.float32(each.high)) for each in table.ranges},
            ),
            handed,
        )
        job.say("quantizing")
        excluded = {*_excluded(prepared, options.exclude), *_infinite(prepared, table)}
        if operators is not None:
            extra["TensorQuantOverrides"] = _without_zero_points(prepared, excluded, table, rules)
        _guarded(
            quantize_static,
            prepared,
            job.out / model.entry,
            None,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=operators,
            nodes_to_exclude=sorted(excluded),
            per_channel=options.per_channel,
            reduce_range=rules.reduce_range,
            activation_type=_TYPES[rules.activation],
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            calibration_cache_path=handed,
            use_external_data_format=_external(model),
            extra_options=extra,
        )
        _place(job.out / model.entry, operators, excluded, rules, table)
        if options.rounding == "adaptive":
            _round(prepared, model, job, options)
        if options.bias_correction:
            _correct_biases(prepared, model, job, options)
    return table


def lookups(model: Model, job: Job, options: Quantize) -> None:
    """Tables that rows are looked up in as int8, in the file that was quantized.

    TensorRT has no int8 table.
    """
    if rules_for(job.target.rules).explicit_weights:
        return
    file = job.out / model.entry
    names = (node.name for node in onnx.load(file, load_external_data=False).graph.node)
    quantize_lookups(file, [name for name in names if any(lies_in(name, module) for module in options.exclude)])


def _without_zero_points(prepared: Path, excluded: set[str], table: RangeTable, rules: Rules) -> dict[str, Any]:
    """What the quantizer is told of activations that are multiplied with one another, or are nearly symmetric."""
    graph = onnx.load(prepared, load_external_data=False)
    lowest = {each.tensor: each.low for each in table.ranges}

    def quantized(node: onnx.NodeProto) -> bool:
        return node.name not in excluded

    names = signed_factors(graph, quantized, lowest) if rules.symmetric_factors else []
    if rules.symmetric_within > 1:
        even = {each.tensor for each in table.ranges if each.symmetric_within(rules.symmetric_within)}
        names += even.intersection(between_convolutions(graph, quantized))
    return {name: [{"quant_type": QuantType.QInt8, "symmetric": True}] for name in names}


def _place(path: Path, operators: list[str] | None, excluded: set[str], rules: Rules, table: RangeTable) -> None:
    """Move the pairs of the file to where the target wants them."""
    graph = onnx.load(path, load_external_data=False)

    def quantized(node: onnx.NodeProto) -> bool:
        return node.name not in excluded and (operators is None or node.op_type in operators)

    spare_float_readers(graph, quantized, rules.float_results if operators is not None else ())
    if rules.summed:
        largest = {each.tensor: max(abs(each.low), abs(each.high)) for each in table.ranges if not each.infinite}
        pair_summands(graph, quantized, rules.summed, largest)
    onnx.save(graph, path)


def _ranges(prepared: Path, operators: list[str] | None, model: Model, job: Job, options: Quantize) -> RangeTable:
    """The ranges of all activations that the quantizer may ask for."""
    calibrater = CalibraterBase(prepared, operators)
    tensors = sorted(calibrater.select_tensors_to_calibrate(calibrater.model)[0])
    weights = digest_of_weights(calibrater.model)
    if options.ranges is not None:
        table = read_ranges(Path(options.ranges))
        if table.weights not in {"", weights}:
            raise UsageError(
                f"{options.ranges}: these ranges were found on other weights than this graph has",
                "calibrate again; to use them all the same, take calibration_weights out of the file's metrics",
            )
        known = {each.tensor for each in table.ranges}
        missing = [name for name in tensors if name not in known]
        if missing:
            more = f" and of {len(missing) - 1} more" if missing[1:] else ""
            raise UsageError(
                f"{options.ranges} has no range of {missing[0]!r}{more}",
                "ranges fit the graph that they were found on, and the operators that were quantized then",
            )
        return table
    rows = Rows(model, job, options)
    symmetric = rules_for(job.target.rules).symmetric_activations
    method = options.calibration_method
    ranges = kept_ranges(
        prepared,
        tensors,
        {
            "rows": rows.fingerprint,
            "samples": rows.samples,
            "batch": options.batch,
            "method": method,
            "percentile": options.percentile if method == "percentile" else None,
            "symmetric": symmetric,
            "threads": job.threads,
        },
        lambda checkpoint: calibrate(
            calibrater.model,
            tensors,
            rows.batches("finding ranges"),
            observer(method, symmetric=symmetric, cut=options.percentile),
            threads=job.threads,
            cut=model.dynamic_batch,
            checkpoint=checkpoint,
        ),
    )
    return RangeTable(
        method=options.calibration_method,
        samples=rows.samples,
        operators=options.operators,
        weights=weights,
        ranges=tuple(ranges),
    )


def _equalize(prepared: Path, model: Model, job: Job) -> None:
    """Cross-layer equalization, on the file."""
    job.say("equalizing")
    graph = onnx.load(prepared)
    equalized(graph)
    onnx.save(graph, prepared, save_as_external_data=_external(model), location="equalized.onnx.data")


def _smooth(prepared: Path, model: Model, job: Job, options: Quantize) -> None:
    """SmoothQuant, on the file."""
    graph = load_model_with_shape_infer(prepared)
    batches = Rows(model, job, options).batches("smoothing")
    smoothed(graph, batches, options.smooth, threads=job.threads, cut=model.dynamic_batch)
    onnx.save(graph, prepared, save_as_external_data=_external(model), location="smoothed.onnx.data")


def _round(prepared: Path, model: Model, job: Job, options: Quantize) -> None:
    """Adaptive rounding, on the file that was quantized."""
    batches = Rows(model, job, options).batches("rounding")
    reference, quantized = onnx.load(prepared), job.out / model.entry
    round_adaptively(reference, quantized, batches, threads=job.threads, cut=model.dynamic_batch, seed=job.seed)


def _correct_biases(prepared: Path, model: Model, job: Job, options: Quantize) -> None:
    """Bias correction, on the file that was quantized."""
    batches = Rows(model, job, options).batches("correcting biases")
    quantized = job.out / model.entry
    correct_biases(onnx.load(prepared), quantized, batches, threads=job.threads, cut=model.dynamic_batch)


def _infinite(prepared: Path, table: RangeTable) -> list[str]:
    """The nodes that read or make values which stand for infinity."""
    unbounded = {each.tensor for each in table.ranges if each.infinite}
    nodes = onnx.load(prepared, load_external_data=False).graph.node
    return [node.name for node in nodes if unbounded.intersection([*node.input, *node.output])]


def _prepared(model: Model, folder: Path) -> Path:
    """Shapes inferred and constants folded: what the quantizers need to see every weight and range."""
    prepared, place = folder / "prepared.onnx", model.path
    if any(file.stat().st_nlink > 1 for file in model.files() if file != model.entry_path):
        # The library loads it by onnx.load, which refuses data that have a second name, as those in the store do.
        place = shutil.copytree(model.path, folder / "own")
    _guarded(
        quant_pre_process,
        place / model.entry,
        prepared,
        # It would import torch, for six seconds, and finds no shape that the quantizers miss.
        skip_symbolic_shape=True,
        save_as_external_data=_external(model),
    )
    return prepared


def _unshare_gemm_weights(prepared: Path, *, external: bool) -> None:
    """Give each Gemm a weight of its own: quantize_dynamic turns it in place, once for each node that reads it."""
    proto = onnx.load(prepared)
    weights = {weight.name: weight for weight in proto.graph.initializer}
    readers = Counter(name for node in proto.graph.node for name in node.input)
    copied = False
    for node in proto.graph.node:
        name = node.input[1] if node.op_type == "Gemm" else ""
        if name in weights and readers[name] > 1:
            readers[name] -= 1
            own = proto.graph.initializer.add()
            own.CopyFrom(weights[name])
            own.name = node.input[1] = f"{name}_{readers[name]}"
            copied = True
    if copied:
        onnx.save(proto, prepared, save_as_external_data=external, location="unshared.onnx.data")


def _excluded(prepared: Path, exclude: tuple[str, ...]) -> list[str]:
    """The nodes of the graph that lie in one of these modules, or have one of these names."""
    return nodes_within(onnx.load(prepared, load_external_data=False), exclude, "exclude") if exclude else []


def _external(model: Model) -> bool:
    return len(list(model.files())) > 1


def _guarded(function: Any, *arguments: Any, **options: Any) -> None:
    """Run one of onnxruntime's quantization functions; they refuse a graph with whatever comes to hand."""
    try:
        function(*arguments, **options)
    except (ValueError, RuntimeError, KeyError, TypeError, AssertionError, AttributeError, IndexError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise StageFailed(
            f"onnxruntime's quantizer refuses this graph: {type(error).__name__}: {reason}",
            "leave the numerics flag out: mlpack then takes the fastest model that it finds",
        ) from error
