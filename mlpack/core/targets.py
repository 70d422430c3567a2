"""The targets: this machine's CPU, and the catalogue of named CPUs and NVIDIA devices."""

from __future__ import annotations

import functools
import re
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlpack.core import machine
from mlpack.core.target import Target
from mlpack.core.target_file import SUFFIXES, read_target
from mlpack.errors import unknown

if TYPE_CHECKING:
    from collections.abc import Iterable

NVIDIA_RULES = "tensorrt-s8s8"
_SPARSE_SINCE = 8.0
# int8 on tensor cores lies in vectors of 32 channels (TensorRT's CHW32), and halves and floats fit into those.
_NVIDIA_MULTIPLE = 32
_TENSOR_CORES = ("tf32", "fp16", "bf16", "int8", "fp8", "fp4")


def targets() -> tuple[Target, ...]:
    """This machine's CPU, then every row of the catalogue."""
    return (this_machine(), *_named())


def load_target(name: str) -> Target:
    """The target of this name, or the one that a YAML file describes; `cpu` is this machine.

    Raises:
        UsageError: no such target (the hint has the nearest right spelling), or the file does not describe one.
    """
    known = {target.name: target for target in targets()}
    if name.endswith(SUFFIXES):
        return read_target(Path(name), known)
    if name.lower() not in known:
        raise unknown("target", name, known)
    return known[name.lower()]


def this_machine() -> Target:
    """This machine's CPU as a target, its instruction sets detected."""
    isa = machine.isa()
    return Target(
        name="cpu",
        title=f"this machine: {machine.cpu_name()}",
        kind="cpu",
        here=True,
        isa=isa,
        numerics=cpu_numerics(isa),
        rules=cpu_rules(isa),
        multiple=cpu_multiple(isa),
        source="https://github.com/archspec/archspec",
        date="2026-11-22",
    )


def is_here(recorded: Target) -> bool:
    """Whether this machine is the target that an artifact, perhaps made elsewhere, says it is for.

    A target of the catalogue is here where its row says so. One of a file has no name that a machine could tell of: it
    is here where the instruction sets, or the compute capability of a card, are the same. `cpu` is the one CPU that it
    was made on.
    """
    row = next((each for each in _named() if each.name == recorded.name), None)
    if row is not None:
        return row.here
    if recorded.kind == "cuda":
        return any(each.compute_capability == recorded.compute_capability for each in machine.nvidia_devices())
    mine = this_machine()
    return set(recorded.isa) == set(mine.isa) and (recorded.name != mine.name or recorded.title == mine.title)


def cpu_numerics(isa: Iterable[str]) -> tuple[str, ...]:
    """What a CPU with these instruction sets runs; fp16 is storage only, and int4 the weights'."""
    has_bf16 = not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(isa)
    return ("fp32", "fp16", *(("bf16",) if has_bf16 else ()), "int8", "int4")


def cpu_rules(isa: Iterable[str]) -> str:
    """The rule set for Q/DQ graphs: VNNI adds products in 32 bits, AVX2 saturates at 16."""
    has = set(isa)
    if has & {"asimd", "asimddp", "i8mm", "sve"}:
        return "arm"
    return "x86-vnni-u8s8" if has & {"avx512_vnni", "avx_vnni", "amx_int8"} else "x86-avx2"


def cpu_multiple(isa: Iterable[str]) -> int:
    """Floats in a vector register, in blocks of which convolution kernels take channels; 8 at least, as on Arm."""
    return 16 if "avx512f" in set(isa) else 8


@functools.cache
def _named() -> tuple[Target, ...]:
    return (
        *(_cpu(row) for row in rows("cpu.yaml")),
        *(_nvidia(row) for row in rows("nvidia.yaml")),
    )


def rows(file: str) -> list[dict[str, Any]]:
    """The rows of one file of the catalogue, as written."""
    import yaml

    text = resources.files("mlpack.core").joinpath("catalogue", file).read_text(encoding="utf-8")
    content: list[dict[str, Any]] = yaml.safe_load(text)
    return content


def _cpu(row: dict[str, Any]) -> Target:
    described = {key: value for key, value in row.items() if key != "microarchitecture"}
    is_here = set(row["isa"]) == set(machine.isa()) and row.get("microarchitecture") == (
        machine.cpu_microarchitecture()
    )
    return Target(kind="cpu", here=is_here, multiple=cpu_multiple(row["isa"]), **described)


def _nvidia(row: dict[str, Any]) -> Target:
    described = {key: value for key, value in row.items() if key != "match"}
    is_here = any(re.fullmatch(row["match"], device.name) for device in machine.nvidia_devices())
    sparse = {}
    if float(row["compute_capability"]) >= _SPARSE_SINCE:
        sparse = {each: 2 * rate for each, rate in row["peak"].items() if each in _TENSOR_CORES}
    return Target(
        kind="cuda", here=is_here, rules=NVIDIA_RULES, multiple=_NVIDIA_MULTIPLE, sparse_peak=sparse, **described
    )
