"""The int8 of the quantize stage: ONNX Runtime's quantizers, driven by the target's rules."""

from __future__ import annotations

import difflib
import logging
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
from onnx import TensorProto
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from mlpack.errors import StageFailed, UsageError
from mlpack.quantization.rules import rules_for
from mlpack.stages.module_names import module_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from mlpack.core.dataset import Dataset
    from mlpack.core.model import Model
    from mlpack.core.stage import Job
    from mlpack.stages.quantize import Quantize

_METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
}
# ONNX Runtime keeps every activation of every sample until the histogram is made (31 MB a sample on ResNet-18).
_HISTOGRAM_SAMPLES = 64
_WEIGHTED = ["Conv", "ConvTranspose", "MatMul", "Gemm"]
# Gather: embeddings, often most of a language model's bytes.
_DYNAMIC = ["MatMul", "Gemm", "Gather", "LSTM", "GRU", "Attention"]
_SHOWN_MODULES = 6
_TYPES = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}


class _Reader(CalibrationDataReader):  # type: ignore[misc] # onnxruntime ships no types
    """Calibration batches, one at a time."""

    def __init__(self, dataset: Dataset, batch: int, samples: int, job: Job) -> None:
        self._total = min(samples, len(dataset))
        self._batches = self._walk(dataset, batch, job)

    def _walk(self, dataset: Dataset, size: int, job: Job) -> Iterator[dict[str, np.ndarray]]:
        done = 0
        for batch in dataset.batches(size):
            job.say("calibrating", done, self._total)
            yield {name: array[: self._total - done] for name, array in batch.inputs.items()}
            done += len(batch)
            if done >= self._total:
                return

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._batches, None)


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


def static(model: Model, job: Job, options: Quantize) -> None:
    """Q/DQ with ranges found on the calibration rows.

    Raises:
        UsageError: there are no calibration rows, or nothing of the graph lies in what is to be excluded.
        StageFailed: the quantizer refuses the graph.
    """
    dataset = job.dataset("calibration")
    if dataset is None:
        raise UsageError(
            "static int8 needs calibration data",
            "give labelled data with --data FILE.npz, or try the mechanics with --calibration random:64",
        )
    logging.disable(logging.WARNING)
    rules = rules_for(job.target.rules)
    samples = options.samples if options.calibration_method == "minmax" else min(options.samples, _HISTOGRAM_SAMPLES)
    batch = options.batch if model.dynamic_batch else _fixed_batch(model)
    reader = _Reader(dataset, batch, samples, job)
    extra: dict[str, Any] = {
        "ActivationSymmetric": rules.symmetric_activations,
        "WeightSymmetric": True,
        "CalibPercentile": options.percentile,
        "MatMulConstBOnly": options.operators == "weighted",
        "DefaultTensorType": TensorProto.FLOAT,
    }
    if rules.explicit_weights:
        extra |= {"AddQDQPairToWeight": True, "QuantizeBias": False, "DedicatedQDQPair": True}
    with tempfile.TemporaryDirectory(dir=job.out.parent) as folder:
        prepared = _prepared(model, Path(folder))
        _guarded(
            quantize_static,
            prepared,
            job.out / model.entry,
            reader,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=_WEIGHTED if options.operators == "weighted" else None,
            nodes_to_exclude=_excluded(prepared, options.exclude),
            per_channel=options.per_channel,
            reduce_range=rules.reduce_range,
            activation_type=_TYPES[rules.activation],
            weight_type=QuantType.QInt8,
            calibrate_method=_METHODS[options.calibration_method],
            use_external_data_format=_external(model),
            extra_options=extra,
        )


def _prepared(model: Model, folder: Path) -> Path:
    """Shapes inferred and constants folded: what the quantizers need to see every weight and range."""
    prepared = folder / "prepared.onnx"
    _guarded(
        quant_pre_process,
        model.entry_path,
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
    """The nodes of the graph that lie in one of these modules, or have one of these names.

    Raises:
        UsageError: there are none in one of them; the hint has what is nearest.
    """
    if not exclude:
        return []
    names = [node.name for node in onnx.load(prepared, load_external_data=False).graph.node]
    found: list[str] = []
    for wanted in exclude:
        inside = [name for name in names if name == wanted or name.startswith((f"{wanted}/", f"{wanted}."))]
        if not inside:
            modules = dict.fromkeys(module for name in names if (module := module_of(name)))
            near = difflib.get_close_matches(wanted, [*modules, *names], n=1)
            known = (
                f"its modules: {', '.join(list(modules)[:_SHOWN_MODULES])}, …"
                if modules
                else "its nodes have no modules"
            )
            raise UsageError(
                f"quantize.exclude: nothing of this graph lies in {wanted!r}",
                f"did you mean {near[0]!r}?" if near else known,
            )
        found += inside
    return found


def _fixed_batch(model: Model) -> int:
    first = model.inputs[0].dims[0]
    return first if isinstance(first, int) else 1


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
