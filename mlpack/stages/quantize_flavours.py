"""The concrete forms of a quantize stage that can fit a graph and a target; measuring decides among them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlpack.stages.quantize_clashes import GPTQ_ONLY, INT8_ONLY, STATIC_ONLY

if TYPE_CHECKING:
    from mlpack.core.model import Model
    from mlpack.core.target import Target
    from mlpack.stages.quantize import Method, Operators, Quantize

# fp16 gains nothing on CPUs (measured), bf16 graphs for NVIDIA targets are not made yet.
_GAINS = {"cpu": ("bf16", "int8"), "cuda": ("fp16", "int8")}
_CASTS = ("fp16", "bf16")
_RECURRENT = {"LSTM", "GRU", "RNN"}
_CONVOLUTION = {"Conv", "ConvTranspose"}
_PRODUCT = {"MatMul", "Gemm"}
_CPU_BLOCK, _NVIDIA_BLOCK = 32, 128
# Of rtn's grids hqq's are never worse, for a few seconds.
_BEST_IN_BLOCKS: tuple[Method, ...] = ("hqq", "gptq")


def flavours(stage: Quantize, model: Model, target: Target) -> tuple[Quantize, ...]:
    """All of them, of each numeric that the stage may take."""
    if stage.numerics == "auto":
        gains = [name for name in _GAINS[target.kind] if name in target.numerics]
        if stage.method == "cast":
            gains = [name for name in gains if name in _CASTS]
        each = [stage.model_copy(update={"numerics": name}) for name in gains]
        return tuple(found for numerics in each for found in flavours(numerics, model, target))
    if stage.numerics in _CASTS:
        return (_without_static(stage, "cast"),)
    if stage.numerics == "int4":
        # GPTQ runs the float graph, which nothing can where its weights stay on the disk.
        best = [each for each in _BEST_IN_BLOCKS if each != "gptq" or not model.on_disk]
        methods = best if stage.method == "auto" else [stage.method]
        return tuple(in_blocks(stage.model_copy(update={"method": method}), target) for method in methods)
    return _of_eight_bits(stage, model, target) or (stage,)


def in_blocks(stage: Quantize, target: Target) -> Quantize:
    """As weights in blocks are kept on this target, with nothing of what only other numerics or methods have."""
    others = (*STATIC_ONLY, *INT8_ONLY, *(GPTQ_ONLY if stage.method != "gptq" else ()))
    told: dict[str, Any] = {name: type(stage).model_fields[name].default for name in others}
    if target.kind == "cuda":
        told |= {"block": stage.block or _NVIDIA_BLOCK, "symmetric": True, "activations": "float"}
        return stage.model_copy(update={**told, "embeddings": False})
    activations = "int8" if stage.activations == "auto" else stage.activations
    return stage.model_copy(update={**told, "block": stage.block or _CPU_BLOCK, "activations": activations})


def _of_eight_bits(stage: Quantize, model: Model, target: Target) -> tuple[Quantize, ...]:
    """Ranges per batch or calibrated, for all operators or only those with weights: what the graph has some of."""
    from mlpack.quantization.coverage import operator_counts

    present = set(operator_counts(model.entry_path))
    found: list[Quantize] = []
    dynamic = stage.method == "dynamic" or (stage.method == "auto" and stage.ranges is None)
    if dynamic and stage.numerics == "int8" and target.kind == "cpu" and present & (_PRODUCT | _RECURRENT):
        found.append(_without_static(stage, "dynamic"))
    if stage.method in {"auto", "static"} and present & (_PRODUCT | _CONVOLUTION):
        wanted = _ranged(stage) if stage.operators == "auto" else (stage.operators,)
        found += [stage.model_copy(update={"method": "static", "operators": operators}) for operators in wanted]
    return tuple(found)


def _without_static(stage: Quantize, method: Method) -> Quantize:
    """By another method, which has nothing of what only static int8 has."""
    plain = {name: type(stage).model_fields[name].default for name in STATIC_ONLY}
    operators: Operators = "weighted" if method == "dynamic" else stage.operators
    return stage.model_copy(update={**plain, "method": method, "operators": operators})


def _ranged(stage: Quantize) -> tuple[Operators, ...]:
    """The sets of operators that there can be ranges for; those of all serve those with weights too."""
    from mlpack.quantization.range_table import read_ranges

    if stage.ranges is not None and read_ranges(Path(stage.ranges)).operators == "weighted":
        return ("weighted",)
    return ("all", "weighted")
