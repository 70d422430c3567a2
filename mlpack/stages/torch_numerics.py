"""Which numerics the stages try that make files of torch's own, and for which targets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from mlpack.core.model import Model
    from mlpack.core.target import Target

Numerics = Literal["auto", "fp32", "bf16"]


def proposed(numerics: Numerics, model: Model, target: Target) -> tuple[Numerics, ...]:
    """The numerics to try: what was asked for, else float32, and bf16 where the CPU has it."""
    if numerics != "auto":
        return (numerics,)
    return ("fp32", "bf16") if "bf16" in target.numerics and model.numerics == "fp32" else ("fp32",)


def elsewhere(target: Target) -> str | None:
    """Why nothing is compiled for this target, or None."""
    if target.kind == "cpu" and target.here:
        return None
    return f"it compiles for the CPU that it runs on, and {target.title} is not that"
