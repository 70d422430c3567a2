"""What of the quantize stage's options would be ignored beside others."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mlpack.stages.quantize import Quantize

STATIC_ONLY = (
    "calibration_method", "percentile", "ranges", "smooth", "equalize", "rounding", "bias_correction", "train",
    "training",
)  # fmt: skip
_INTEGERS_ONLY = ("rounding", "bias_correction", "train", "training")
BLOCK_METHODS = ("rtn", "hqq", "gptq")
GPTQ_ONLY = ("damping", "act_order")
_CASTS = ("fp16", "bf16")
# The other methods of int4 look at weights alone.
OF_ROWS = ("samples", "batch")
_BLOCKS_ONLY = ("block", "symmetric", "wide", "activations", "embeddings", "least_share", *GPTQ_ONLY)
INT8_ONLY = ("operators", "per_channel")


def set_apart(stage: Quantize, names: Iterable[str]) -> list[str]:
    """The options among these that are not as they are by default."""
    return [name for name in names if getattr(stage, name) != type(stage).model_fields[name].default]


def clash(stage: Quantize) -> str | None:
    """What would be ignored, or None."""
    return _of_int4(stage) if stage.numerics == "int4" else _of_others(stage) or _of_ranges(stage)


def lacking_on_cards(stage: Quantize) -> str | None:
    """Which of the options of int4 TensorRT has nothing for, or None."""
    if stage.embeddings is True:
        return "TensorRT has no int4 tables"
    return "TensorRT has no int8 beside int4 weights" if stage.activations == "int8" else None


def _of_int4(stage: Quantize) -> str | None:
    """What weights in blocks have no use for."""
    if stage.method not in {"auto", *BLOCK_METHODS}:
        return f"method: {stage.method} is not for int4"
    for name in set_apart(stage, STATIC_ONLY):
        return f"{name} is for static int8 alone, and this is int4"
    for name in set_apart(stage, INT8_ONLY):
        return f"{name} is for int8, and this is int4"
    if stage.method not in {"auto", "gptq"}:
        for name in set_apart(stage, (*GPTQ_ONLY, *OF_ROWS)):
            return f"{name} is for method: gptq, and this is {stage.method}"
    return None


def _of_others(stage: Quantize) -> str | None:
    """What only weights in blocks have, and what only static int8 has."""
    if stage.method in BLOCK_METHODS:
        return f"method: {stage.method} is for int4, and this is {stage.numerics}"
    for name in set_apart(stage, _BLOCKS_ONLY):
        return f"{name} is for int4 alone, and this is {stage.numerics}"
    static = set_apart(stage, STATIC_ONLY)
    other = stage.method if stage.method in {"dynamic", "cast"} else stage.numerics
    integers = [name for name in static if name in _INTEGERS_ONLY]
    if stage.numerics == "fp8" and (integers or stage.method in {"dynamic", "cast"}):
        return f"{integers[0] if integers else f'method: {stage.method}'} is not for fp8"
    if static and other not in {"auto", "static", "int8", "fp8"}:
        these = f"{' and '.join(static)} {'are' if static[1:] else 'is'}"
        return f"{these} for static int8 alone, and this is {other}"
    if stage.exclude and (stage.method == "cast" or stage.numerics in _CASTS):
        return f"exclude is for int8, int4 and fp8, and this is {other}"
    return _of_training(stage)


def _of_training(stage: Quantize) -> str | None:
    """What says how to train where nothing is trained; what a quantized graph, or one without labels, has none of."""
    told = stage.training
    if set_apart(stage, ("training",)) and stage.train == "never":
        return "training says how, and train: never that there is none"
    if told.batch_norm != type(told).model_fields["batch_norm"].default:
        return "training.batch_norm is for modules: the graph has its batch norms with statistics as they are"
    if told.output is not None and told.alpha == 0:
        return "training.output says which output the labels belong to, and training.alpha: 0 that none are learnt"
    return None


def _of_ranges(stage: Quantize) -> str | None:
    """What finds ranges where they are given, and what does not find them so."""
    found = set_apart(stage, ("calibration_method", "percentile"))
    if stage.ranges is not None and found:
        return f"with ranges given, {found[0]} finds none"
    if "percentile" in found and stage.calibration_method != "percentile":
        return f"percentile is for calibration_method: percentile, and this is {stage.calibration_method}"
    return None
