"""The floor: how long a graph takes on a target at the least, by its operations and its bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlpack.core.target import Target
    from mlpack.measure.graph_cost import GraphCost

# No CPU of the catalogue's families is sold with a faster clock.
_FASTEST_HZ = 6.2e9
BITS = {"fp32": 32, "tf32": 32, "fp16": 16, "bf16": 16, "int8": 8, "fp8": 8, "int4": 4, "fp4": 4}
# Operations a cycle and core, two for a multiplication with its addition: lanes of a register times the most vector
# units that a core with these instructions has (two on x86, four of 128 bits on ARM, one tile unit of 16 x 64 bytes
# that takes 16 cycles).
_CYCLE: dict[str, dict[str, float]] = {
    "avx2": {"fp32": 32, "int8": 128},
    "avx512f": {"fp32": 64, "int8": 256},
    "avx_vnni": {"int8": 256},
    "avx512_vnni": {"int8": 256},
    "avx512_bf16": {"bf16": 128},
    "avx512_fp16": {"fp16": 128},
    "amx_bf16": {"bf16": 1024},
    "amx_int8": {"int8": 2048},
    "asimd": {"fp32": 32, "fp16": 64, "int8": 128},
    "sve": {"fp32": 32},
    "asimddp": {"int8": 128},
    "i8mm": {"int8": 256},
    "bf16": {"bf16": 128},
}
_STANDING_IN = {"fp16": ("fp32",), "bf16": ("fp32",), "int4": ("int8", "fp32")}


def unit(target: Target, numerics: str) -> str | None:
    """The instruction set that computes these numerics fastest on a CPU; of equals the one made for them."""
    known = [each for each in _CYCLE if each in target.isa and any(map(_CYCLE[each].get, _counted_as(numerics)))]
    return max(known, key=lambda each: (_cycle(each, numerics), known.index(each)), default=None)


def peak_rate(name: str, numerics: str, threads: int) -> float:
    """Operations a second that so many threads do with this instruction set at the most."""
    return _cycle(name, numerics) * threads * _FASTEST_HZ


def floors_ms(cost: GraphCost, target: Target, threads: int | None = None) -> dict[str, float]:
    """Ms by each of the target's numerics for one call, never above what a measurement would say.

    As if all products ran in those numerics at the peak rate, everything else cost nothing, and the last level of
    cache kept as many of the weights as it holds. `threads` are those used on a CPU, its cores where not given.
    Numerics of which the rate is not known are left out. After Williams, Waterman and Patterson, "Roofline", 2009.
    """
    found = {}
    for numerics in target.numerics:
        rate = _rate(target, numerics, threads)
        if rate is None:
            continue
        seconds = cost.least_operations / rate
        if target.bandwidth_gb_s is not None and target.cache_mib is not None:
            read = cost.weights * BITS[numerics] / 8 - target.cache_mib * 2**20
            seconds = max(seconds, read / (target.bandwidth_gb_s * 1e9))
        found[numerics] = seconds * 1e3
    return found


def largest_batch(weights: int, bytes_io: int, target: Target) -> int | None:
    """The most samples of which inputs and outputs lie beside the fp32 weights in the target's memory.

    `bytes_io` are those of one sample. None where the target's memory is not known; activations come on top.
    """
    if target.memory_gb is None:
        return None
    free = target.memory_gb * 1e9 - weights * BITS["fp32"] / 8
    return max(0, int(free // max(bytes_io, 1)))


def _rate(target: Target, numerics: str, threads: int | None) -> float | None:
    """Operations a second, at the most."""
    if target.kind == "cuda":
        # Libraries may compute float32 in tf32 unless they are told not to.
        known = [target.peak[each] for each in _at_least(numerics) if each in target.peak]
        return max(known) * 1e12 if numerics in target.peak and known else None
    if numerics in target.peak:
        return target.peak[numerics] * 1e12
    cores, fastest = threads or target.cores, unit(target, numerics)
    return peak_rate(fastest, numerics, cores) if cores and fastest else None


def _cycle(name: str, numerics: str) -> float:
    return max(_CYCLE[name].get(kind, 0.0) for kind in _counted_as(numerics))


def _at_least(numerics: str) -> tuple[str, ...]:
    return ("fp32", "tf32") if numerics == "fp32" else (numerics,)


def _counted_as(numerics: str) -> tuple[str, ...]:
    """On CPUs without an own unit for them, 16 bit floats are computed as fp32, and weights of 4 bits meet int8."""
    return (numerics, *_STANDING_IN.get(numerics, ()))
