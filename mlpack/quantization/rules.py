"""Rule sets: how Q/DQ graphs must look for a family of targets. One row per family."""

from __future__ import annotations

from typing import Literal

from mlpack.core.words import Frozen
from mlpack.errors import unknown


class Rules(Frozen):
    """Types and symmetry of activations and weights, and where Q/DQ pairs go.

    `reduce_range` keeps weights to 7 bits: without VNNI, AVX2's 16-bit accumulation of u8 × s8 overflows.
    `explicit_weights` keeps a float weight behind its own Q/DQ pair and leaves the bias in float, which is what
    TensorRT folds.

    `float_results` are the operators with weights whose results stay in float where only such operators are
    quantized. Kernels that multiply matrices add up in 32 bits and can give floats; a convolution's cannot on every
    runtime. What reads the result, such as a residual sum with outliers, then loses nothing (decision 0022).
    `symmetric_factors`: two activations that are multiplied have no zero points (decision 0025).
    `symmetric_within`: activations of both signs have none either where that makes their step no more than so many
    times as coarse; kernels are faster without (decision 0048).
    `summed` are those whose kernels also add up: the other summand gets a pair, and none stands before the sum.
    """

    name: str
    activation: Literal["uint8", "int8"]
    symmetric_activations: bool
    reduce_range: bool
    explicit_weights: bool
    float_results: tuple[str, ...] = ("MatMul", "Gemm")
    summed: tuple[str, ...] = ()
    symmetric_factors: bool = False
    symmetric_within: float = 1.0


RULES: dict[str, Rules] = {
    rules.name: rules
    for rules in (
        Rules(
            name="tensorrt-s8s8",
            activation="int8",
            symmetric_activations=True,
            reduce_range=False,
            explicit_weights=True,
            float_results=("Conv", "ConvTranspose", "MatMul", "Gemm"),
            summed=("Conv",),
        ),
        Rules(
            name="x86-vnni-u8s8",
            activation="uint8",
            symmetric_activations=False,
            reduce_range=False,
            explicit_weights=False,
            symmetric_factors=True,
            symmetric_within=1.2,
        ),
        Rules(
            name="x86-avx2",
            activation="uint8",
            symmetric_activations=False,
            reduce_range=True,
            explicit_weights=False,
            symmetric_factors=True,
            symmetric_within=1.2,
        ),
        Rules(
            name="arm",
            activation="int8",
            symmetric_activations=False,
            reduce_range=False,
            explicit_weights=False,
        ),
    )
}


def rules_for(name: str) -> Rules:
    """The rule set of this name.

    Raises:
        UsageError: no such rule set.
    """
    if name not in RULES:
        raise unknown("rule set", name, RULES)
    return RULES[name]
