"""The concrete forms of a quantize stage that can fit a graph and a target; measuring decides among them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlpack.stages.quantize_clashes import GPTQ_ONLY, INT8_ONLY, OF_ROWS, STATIC_ONLY

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
_CPU_BLOCK, _WIDE_BLOCK = 32, 128


def flavours(stage: Quantize, model: Model, target: Target) -> tuple[Quantize, ...]:
    """All of them, of each numeric that the stage may take."""
    if stage.numerics == "auto":
        gains = [name for name in _GAINS[target.kind] if name in target.numerics]
        if stage.method == "cast":
            gains = [name for name in gains if name in _CASTS]
        each = [stage.model_copy(update={"numerics": name}) for name in gains]
        return tuple(found for numerics in each for found in flavours(numerics, model, target))
    if stage.numerics in _CASTS:
        return (_without_static(stage, "cast").model_copy(update={"exclude": ()}),)
    if stage.numerics == "int4":
        return tuple(in_blocks(each, target) for each in _rounded(stage, model, target))
    return _of_eight_bits(stage, model, target) or (stage,)


def _rounded(stage: Quantize, model: Model, target: Target) -> tuple[Quantize, ...]:
    """By the method that was asked for, or the best one, in blocks of that size, or of two sizes."""
    if stage.method != "auto":
        return (stage,)
    if model.on_disk:
        # GPTQ runs the float graph, which nothing can where its weights stay on the disk.
        return (stage.model_copy(update={"method": "hqq"}),)
    # GPTQ's blocks of 128 are nearer to the original than other methods' of 32 (decision 0040), and smaller.
    blocks = (_CPU_BLOCK, _WIDE_BLOCK) if stage.block is None and target.kind == "cpu" else (stage.block,)
    return tuple(stage.model_copy(update={"method": "gptq", "block": block}) for block in blocks)


def in_blocks(stage: Quantize, target: Target) -> Quantize:
    """As weights in blocks are kept on this target, with nothing of what only other numerics or methods have."""
    others = (*STATIC_ONLY, *INT8_ONLY, *((*GPTQ_ONLY, *OF_ROWS) if stage.method != "gptq" else ()))
    told: dict[str, Any] = {name: type(stage).model_fields[name].default for name in others}
    if target.kind == "cuda":
        told |= {"block": stage.block or _WIDE_BLOCK, "symmetric": True, "activations": "float"}
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
