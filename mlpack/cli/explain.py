"""`mlpack explain`: which layers cost the accuracy, which parts the time, and what to try."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlpack.cli.options import MaybeRef, Store

if TYPE_CHECKING:
    from mlpack.api.explain import Explained
    from mlpack.cli.screen import Screen

_SHOWN_LAYERS = 12


def command(screen: Screen, reference: MaybeRef = None, store: Store = None) -> None:
    """Say which layers cost an artifact its accuracy, which parts its time, and what to try."""
    from mlpack.api.explain import explain

    with screen.progress() as progress:
        found = explain(reference, store, reporter=progress)
    screen.result(found.model_dump(mode="json"), lambda screen: _draw(screen, found))


def _draw(screen: Screen, found: Explained) -> None:
    screen.print(f"{found.artifact}: {found.numerics}, accuracy {found.verdict}")
    if found.reason is not None:
        screen.print(f"accuracy, layer by layer: {found.reason}")
    if found.layers:
        ranked = found.costliest[:_SHOWN_LAYERS]
        rows = [
            (each.module or each.layer, each.operator, f"{each.own_sqnr:.1f}", _decibels(each.sqnr)) for each in ranked
        ]
        shown = (
            f"the {len(ranked)} noisiest of {len(found.layers)} layers" if len(rows) < len(found.layers) else "layers"
        )
        screen.table(
            ("layer", "operator", "alone dB", "reached dB"),
            rows,
            title=f"what quantizing costs, {shown}, on {found.samples} golden inputs",
            right=("alone dB", "reached dB"),
        )
        for name, sqnr in found.outputs.items():
            screen.print(f"output {name}: {_decibels(sqnr)} dB over the noise")
    if found.components:
        parts = sorted(found.components, key=lambda each: -each.p50)
        screen.table(
            ("component", "P50 ms", "share"),
            [(each.name, f"{each.p50:.3f}", f"{each.share:.1%}") for each in parts],
            title="what costs the time of one request",
            right=("P50 ms", "share"),
        )
    if found.modules:
        slow = sorted(found.modules, key=lambda each: -(each.optimized or 0.0))
        screen.table(
            ("module", "before ms", "now ms"),
            [(each.module, _ms(each.baseline), _ms(each.optimized)) for each in slow],
            right=("before ms", "now ms"),
        )
    screen.print(f"To try: {found.advice.why}\n  {found.advice.command}")


def _decibels(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
