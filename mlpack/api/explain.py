"""`mlpack.explain()`: which layers cost an artifact its accuracy, which parts its time, and what to try."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlpack.api.advice import Advice, LayerError, advice
from mlpack.api.lookup import artifact, cache_folder, intact_model
from mlpack.core.artifact import ComponentRecord, ModuleRecord
from mlpack.core.notebook import progress_in_notebooks
from mlpack.core.report import Report
from mlpack.core.reporter import Reporter, Silent
from mlpack.core.summary import Commands, Grid, Told
from mlpack.core.words import Frozen
from mlpack.errors import MlpackError
from mlpack.quantization.range_table import RangeTable, ranges_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlpack.core.artifact import Stored
    from mlpack.core.model import Model
    from mlpack.core.summary import Part

_QUANTIZE = "quantize"
_INPUTS = "golden/inputs.npz"
_SHOWN_LAYERS = 12
_SHOWN_RANGES = 6


class Explained(Frozen, Told):
    """An artifact, explained. `layers` are in the order of the graph; `reason` says why there are none."""

    artifact: str
    numerics: str
    verdict: str
    drop: float | None
    layers: tuple[LayerError, ...]
    outputs: dict[str, float | None]
    samples: int
    reason: str | None
    components: tuple[ComponentRecord, ...]
    modules: tuple[ModuleRecord, ...]
    calibration: RangeTable | None
    advice: Advice

    @property
    def costliest(self) -> tuple[LayerError, ...]:
        """The layers by the noise that they add themselves, the noisiest first."""
        return tuple(sorted(self.layers, key=lambda each: each.own_sqnr))

    def summary(self) -> Iterator[Part]:
        """Layers by their noise, components and modules by their time, and what to try."""
        yield f"{self.artifact}: {self.numerics}, accuracy {self.verdict}"
        if self.reason is not None:
            yield f"accuracy, layer by layer: {self.reason}"
        if self.layers:
            yield from self._noise()
        if self.calibration is not None:
            yield self._ranges(self.calibration)
        if self.components:
            parts = sorted(self.components, key=lambda each: -each.p50)
            yield Grid(
                ("component", "P50 ms", "share"),
                [(each.name, f"{each.p50:.3f}", f"{each.share:.1%}") for each in parts],
                title="what costs the time of one request",
                right=("P50 ms", "share"),
            )
        if self.modules:
            slow = sorted(self.modules, key=lambda each: -(each.optimized or 0.0))
            yield Grid(
                ("module", "before ms", "now ms"),
                [(each.module, _shown(each.baseline, 3), _shown(each.optimized, 3)) for each in slow],
                right=("before ms", "now ms"),
            )
        yield f"To try: {self.advice.why}"
        yield Commands((self.advice.command,))

    def _ranges(self, table: RangeTable) -> Grid:
        widest = sorted(table.ranges, key=lambda each: each.low - each.high)[:_SHOWN_RANGES]
        shown = f"the {len(widest)} widest of {len(table.ranges)}"
        return Grid(
            ("tensor", "low", "high"),
            [(each.tensor, f"{each.low:.4g}", f"{each.high:.4g}") for each in widest],
            title=f"ranges by {table.method} on {table.samples} samples, {shown}",
            right=("low", "high"),
        )

    def _noise(self) -> Iterator[Part]:
        ranked = self.costliest[:_SHOWN_LAYERS]
        fewer = len(ranked) < len(self.layers)
        shown = f"the {len(ranked)} noisiest of {len(self.layers)} layers" if fewer else "layers"
        yield Grid(
            ("layer", "operator", "alone dB", "reached dB"),
            [
                (each.module or each.layer, each.operator, f"{each.own_sqnr:.1f}", _shown(each.sqnr, 1))
                for each in ranked
            ],
            title=f"what quantizing costs, {shown}, on {self.samples} golden inputs",
            right=("alone dB", "reached dB"),
        )
        for name, sqnr in self.outputs.items():
            yield f"output {name}: {_shown(sqnr, 1)} dB over the noise"


def _shown(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


@progress_in_notebooks
def explain(ref: str | None = None, store: str | Path | None = None, *, reporter: Reporter | None = None) -> Explained:
    """Run the quantized graph beside the one it was made from, on the golden inputs, and look at both timings.

    The graph before quantizing comes from the cache; where it is no longer there it is made again from the recipe,
    for which model and data have to be where they were.

    Raises:
        UsageError: an unknown artifact.
        Tampered: its files are damaged.
        ModelError, DataError: the graph has to be made again, and model or data are not there as they were.
    """
    telling = reporter or Silent()
    stored = artifact(ref, store)
    this = stored.artifact
    found: dict[str, Any] = {"layers": (), "outputs": {}, "samples": 0}
    reason = _reason(stored)
    if reason is None:
        found = _layers(stored, telling)
        if not found["layers"]:
            reason = "no layer differs from the original by more than rounding"
    layers = tuple(_layer(each) for each in found.pop("layers"))
    return Explained(
        artifact=f"{this.name}@{this.version}",
        numerics=this.model.numerics,
        verdict=this.accuracy.verdict,
        drop=this.accuracy.drop,
        layers=layers,
        reason=reason,
        components=this.components,
        modules=this.modules,
        calibration=_calibration(stored),
        advice=advice(stored, layers),
        **found,
    )


def _calibration(stored: Stored) -> RangeTable | None:
    """The ranges that its static int8 rests on."""
    report = stored.path / "reports" / f"{_QUANTIZE}.json"
    return ranges_of(Report.model_validate_json(report.read_bytes())) if report.is_file() else None


def _reason(stored: Stored) -> str | None:
    """Why there is nothing to compare layer by layer."""
    this = stored.artifact
    if not any(each.stage == _QUANTIZE for each in this.lineage):
        return f"it was not quantized: {this.model.numerics}, as the original"
    if this.model.format != "onnx":
        return f"its file is {this.model.format}: only ONNX graphs are compared layer by layer"
    return None


def _layers(stored: Stored, telling: Reporter) -> dict[str, Any]:
    from mlpack.core.threads import usable_threads
    from mlpack.engine import process

    arguments = {
        "reference": str(_unquantized(stored, telling).entry_path),
        "quantized": str(intact_model(stored).entry_path),
        "inputs": str(stored.path / _INPUTS),
        "step": stored.artifact.golden.get("batch", 1),
        "threads": usable_threads(),
    }
    found: dict[str, Any] = process.call("mlpack.quantization.layer_errors:layer_errors", arguments, telling.say).value
    return found


def _layer(row: dict[str, Any]) -> LayerError:
    from mlpack.stages.module_names import module_of

    return LayerError(module=module_of(row["layer"]), **row)


def _unquantized(stored: Stored, telling: Reporter) -> Model:
    """The graph that was quantized: from the cache under the lineage's keys, else made again."""
    from mlpack.engine.cache import find

    lineage = stored.artifact.lineage
    position = next(index for index, each in enumerate(lineage) if each.stage == _QUANTIZE)
    key = lineage[position - 1].key
    kept = find(cache_folder() / "stages" / key[:2] / key)
    if kept is not None:
        return kept.model
    try:
        return _made_again(stored, position, telling)
    except MlpackError as error:
        named = f"{stored.artifact.name}@{stored.artifact.version}"
        hint = f"{error.hint}; run mlpack from the folder that {named} was made in"
        raise type(error)(f"the graph before quantizing has to be made again: {error.message}", hint) from error


def _made_again(stored: Stored, position: int, telling: Reporter) -> Model:
    from mlpack.api.prepare import prepare
    from mlpack.core.recipe import Recipe
    from mlpack.engine.run import run
    from mlpack.stages import STAGES

    recipe = Recipe.model_validate(stored.artifact.recipe)
    prepared = prepare(recipe, cache_folder(), telling)
    model = prepared.baseline
    for each in stored.artifact.lineage[1:position]:
        stage = STAGES[each.stage].model_validate(each.options)
        model = run(stage, model, prepared.context).model
    return model
