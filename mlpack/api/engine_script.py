"""`build-engine.sh`: how the TensorRT engine of an artifact for an absent card is built by hand."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mlpack.backends.tensorrt_plan import spans_of

if TYPE_CHECKING:
    from mlpack.core.model import Model, TensorSpec

_BATCHES = (1, 8, 32)
_FLAGS = ("--minShapes", "--optShapes", "--maxShapes")


def engine_script(model: Model, title: str) -> str:
    """The script. TensorRT 11 takes types from the graph: no --int8, no --fp16.

    A free dim of which no largest size is known is asked for as a variable of its name.
    """
    unknown = sorted({span for spec in model.inputs for span in _spans(spec, model) if isinstance(span, str)})
    asked = "".join(f': "${{{_variable(dim)}:?the largest size of {dim}}}"\n' for dim in unknown)
    # It takes shapes of inputs with free dims only.
    free = [spec for spec in model.inputs if any(isinstance(dim, str) for dim in spec.dims)]
    flags = [f"{flag}={','.join(_shape(spec, model, at) for spec in free)}" for at, flag in enumerate(_FLAGS) if free]
    build = [f"trtexec --onnx=model/{model.entry} --saveEngine=model.plan --noTF32 --skipInference", *flags]
    return (
        "#!/bin/sh\n"
        f"# Builds the TensorRT 11 engine on {title}. Types come from the graph, which is strongly typed:\n"
        "# there are no --int8 or --fp16 flags any more. Run it on the target, in this folder. mlpack build also\n"
        "# scores and times the engine.\n"
        f"set -eu\n{asked}" + " \\\n  ".join(build) + "\n"
    )


def _shape(spec: TensorSpec, model: Model, at: int) -> str:
    """`name:8x3x224x224`, the smallest, the usual or the largest."""
    sizes = [
        (f"${{{_variable(span)}}}" if at else "1") if isinstance(span, str) else str(span[at])
        for span in _spans(spec, model)
    ]
    return f"{spec.name}:{'x'.join(sizes)}"


def _spans(spec: TensorSpec, model: Model) -> list[tuple[int, int, int] | str]:
    return spans_of(spec, _BATCHES, model.largest)


def _variable(dim: str) -> str:
    letters = re.sub(r"\W", "_", dim)
    return f"SIZE_{letters.upper()}"
