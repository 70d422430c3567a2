"""`mlpack targets`: the hardware that models can be made for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mlpack.core.wording import number

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlpack.cli.screen import Screen
    from mlpack.core.target import Target


def command(
    screen: Screen,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="All about this one, or the one a .yaml file describes.")
    ] = None,
) -> None:
    """List the hardware that models can be made for; `cpu` is this machine."""
    from mlpack.api.targets import targets

    found = targets(name)

    def human(screen: Screen) -> None:
        if name:
            screen.table(("", ""), _facts(found[0]))
        else:
            columns = ("target", "SM", "GB", "GB/s", "numerics")
            screen.table(columns, map(_row, found), right=("SM", "GB", "GB/s"))
            screen.print("mlpack targets NAME shows rates, rules and sources")

    screen.result({"targets": [each.model_dump(mode="json") for each in found]}, human)


def _row(target: Target) -> tuple[str, ...]:
    label = f"{target.name} (here)" if target.here else target.name
    numbers = (target.compute_capability or "", number(target.memory_gb), number(target.bandwidth_gb_s, 5))
    return (label, *numbers, " ".join(target.numerics))


def _facts(target: Target) -> Iterator[tuple[str, str]]:
    yield "name", target.name
    yield "title", target.title
    yield "here", "yes" if target.here else "no"
    if target.compute_capability:
        yield "compute capability", target.compute_capability
    if target.sms:
        yield "SMs", str(target.sms)
    if target.cores:
        yield "cores", f"{target.cores} a socket, at most"
    if target.isa:
        yield "instruction sets", " ".join(target.isa)
    yield "numerics", " ".join(target.numerics)
    yield "Q/DQ rules", target.rules
    yield from _rates(target)
    if target.note:
        yield "note", target.note
    yield "source", f"{target.source} ({target.date})"


def _rates(target: Target) -> Iterator[tuple[str, str]]:
    if target.memory_gb:
        yield "memory", f"{number(target.memory_gb)} GB"
    if target.bandwidth_gb_s:
        yield "bandwidth", f"{number(target.bandwidth_gb_s, 5)} GB/s"
    if target.cache_mib:
        yield "last cache", f"{number(target.cache_mib)} MiB"
    for numerics, rate in target.peak.items():
        unit = "TOP/s" if numerics.startswith("int") else "TFLOP/s"
        sparse = target.sparse_peak.get(numerics)
        also = f", {number(sparse, 5)} with 2:4 sparsity" if sparse else ""
        yield f"peak {numerics}", f"{number(rate, 5)} {unit}, dense{also}"
    if target.mig:
        yield "MIG profiles", " ".join(target.mig)
