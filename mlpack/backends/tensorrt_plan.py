"""What lies beside a TensorRT plan: who built it, for which devices, and what the parser made of the graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from mlpack.core.words import Frozen

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlpack.core.model import Model, TensorSpec

PLAN = "model.plan"
RECORD = "build.json"
LOG = "build.log"
TIMING_CACHE = "timing.cache"

Hardware = Literal["target", "same_compute_capability", "ampere_plus"]
Weights = Literal["constants", "streamed", "refittable", "stripped"]
Span = tuple[int, int, int]


class Profile(Frozen):
    """The shapes of one input that an engine is built for."""

    smallest: tuple[int, ...]
    usual: tuple[int, ...]
    largest: tuple[int, ...]


class Build(Frozen):
    """How a plan was built. `layers` counts the parsed network's, `tensors` its tensors by type.

    `compute` counts the layers that multiply by the type that goes in; `quantized` those fed by DequantizeLinear.
    """

    library: Literal["tensorrt", "tensorrt_rtx"]
    version: str
    compute_capability: str
    hardware: Hardware
    weights: Weights
    version_compatible: bool
    tf32: bool
    profile: dict[str, Profile]
    layers: dict[str, int]
    tensors: dict[str, int]
    compute: dict[str, int]
    quantized: int
    plan_bytes: int


def build_of(model: Model) -> Build:
    """The record beside a model's plan."""
    return Build.model_validate_json((model.path / RECORD).read_text(encoding="utf-8"))


def spans_of(
    spec: TensorSpec, batches: Span, largest: Mapping[str, int], told: Mapping[str, Span] | None = None
) -> list[Span | str]:
    """Smallest, usual and largest size of each dim of an input; the name of a dim of which nobody knows any.

    The first dim is the batch, where it is free. `told` are sizes by the name of the dim.
    """
    spans: list[Span | str] = []
    for place, dim in enumerate(spec.dims):
        if isinstance(dim, int):
            spans.append((dim, dim, dim))
        elif told is not None and dim in told:
            spans.append(told[dim])
        elif place == 0:
            spans.append(batches)
        else:
            spans.append((1, largest[dim], largest[dim]) if dim in largest else dim)
    return spans
