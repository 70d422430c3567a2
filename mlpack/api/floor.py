"""The floor of a model on a target, from its ONNX graph: how fast no run can be, and which batch its memory holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlpack.errors import StageFailed, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from mlpack.core.model import Model
    from mlpack.core.recipe import Recipe
    from mlpack.core.stage import Stage
    from mlpack.core.target import Target
    from mlpack.engine.context import Context
    from mlpack.measure.graph_cost import GraphCost


_TENSORRT = "11"
_EXPORT = "export"


@dataclass(frozen=True)
class Counted:
    """An ONNX graph, counted at each batch size that is to be timed.

    `sizes` are those of its other named dims: of the rows that would be timed, and 1 for a name that they do not tell.
    """

    batches: tuple[int, ...]
    costs: dict[int, GraphCost]
    sizes: dict[str, int]


@dataclass(frozen=True)
class Floor:
    """Of the graph: operations (a multiplication and an addition are two) of one sample, weights, opset.

    `floor_ms` has ms by batch size and numerics, empty where no rate of the target is known. `largest_batch` is None
    where the target's memory is not known. `sizes` are the named dims other than the batch that it holds for.
    """

    operations: float
    weights: int
    opset: int
    floor_ms: dict[int, dict[str, float]]
    largest_batch: int | None
    sizes: dict[str, int]


def counted_of(models: Iterable[Model | None], latency: Stage, context: Context) -> Counted | None:
    """The first of the models that is an ONNX graph, in float where there is one; None where there is none.

    Counted on rows as they would be timed.
    """
    graphs = [each for each in models if each is not None and each.format == "onnx"]
    model = min(graphs, key=lambda each: each.numerics != "fp32", default=None)
    if model is None:
        return None
    batches: tuple[int, ...] = latency.model_dump().get("batches", (1,)) if model.dynamic_batch else (1,)
    return count(model, batches, _shapes(model, max(batches), context))


def count(model: Model, batches: Sequence[int], shapes: Mapping[str, Sequence[int]]) -> Counted:
    """An ONNX model at these batch sizes, its other named dims as arrays of these shapes have them."""
    from mlpack.measure.graph_cost import graph_cost

    named = {str(spec.dims[0]) for spec in model.inputs if spec.dims and isinstance(spec.dims[0], str)}
    told = {
        dim: size
        for spec in model.inputs
        for dim, size in zip(spec.dims[1:], shapes.get(spec.name, ())[1:], strict=False)
        if isinstance(dim, str) and dim not in named
    }
    costs = {batch: graph_cost(model.entry_path, {**told, **dict.fromkeys(named, batch)}) for batch in {1, *batches}}
    return Counted(tuple(batches), costs, told)


def floor_of(counted: Counted, latency: Stage, context: Context) -> Floor:
    """What no run is faster than.

    Raises:
        UsageError: the target's memory does not hold such a batch.
    """
    from mlpack.measure.roofline import floors_ms, largest_batch

    one, threads = counted.costs[1], context.threads if context.target.here else None
    found = {batch: floors_ms(counted.costs[batch], context.target, threads) for batch in counted.batches}
    largest = largest_batch(one.weights, one.bytes_io, context.target)
    most = max(counted.batches)
    if largest is not None and most > largest:
        raise UsageError(
            f"batch {most} does not fit {context.target.title}: beside the weights, inputs and outputs of "
            f"{largest} samples fill its {context.target.memory_gb:g} GB",
            f"--set {latency.name}.batches=1,8",
        )
    told = {batch: ms for batch, ms in found.items() if ms}
    return Floor(one.operations, one.weights, one.opset, told, largest, counted.sizes)


def check_memory(recipe: Recipe, original: Model, context: Context) -> None:
    """Whether a target that is not here holds the batches that would be timed there, before hours of work for it.

    The graph is that of the recipe's own export, which the search then takes from the cache; where something else comes
    first, such as pruning, there is none yet.

    Raises:
        UsageError: its memory does not.
    """
    from mlpack.engine.run import run
    from mlpack.engine.validate import options_of

    if context.target.here or context.target.memory_gb is None:
        return
    model: Model | None = original
    if original.format != "onnx" and recipe.steps and recipe.steps[0].stage == _EXPORT:
        try:
            model = run(options_of(recipe.steps[0]), original, context).model
        except StageFailed:
            # The search has other ways, or says it with all the others.
            return
    latency = options_of(recipe.latency)
    counted = counted_of([model], latency, context)
    if counted is not None:
        floor_of(counted, latency, context)


def floors_here(
    models: Mapping[str, Model], batches: Sequence[int], shapes: Mapping[str, Sequence[int]], context: Context
) -> dict[str, dict[int, float]]:
    """Ms by batch size that each of these models needs at the least on this machine, in its own numerics and threads.

    `shapes` are those of the inputs that are run. There is none of other formats than ONNX, nor on a card.
    """
    from mlpack.measure.roofline import floors_ms

    counted: dict[Path, Counted] = {}
    found: dict[str, dict[int, float]] = {}
    for key, model in models.items():
        if model.format != "onnx" or model.backend_options.device != "cpu":
            continue
        if model.entry_path not in counted:
            counted[model.entry_path] = count(model, batches, shapes)
        options = model.backend_options.with_threads(context.threads)
        numerics = "bf16" if options.precision == "bfloat16" else model.numerics
        ms = {
            batch: floors_ms(counted[model.entry_path].costs[batch], context.target, options.threads)
            for batch in batches
        }
        found[key] = {batch: each[numerics] for batch, each in ms.items() if numerics in each}
    return found


def _shapes(model: Model, batch: int, context: Context) -> dict[str, tuple[int, ...]]:
    """Of the rows that a timing takes; none for a static batch, which may be timed on other rows than the data's."""
    if context.data is None or not model.dynamic_batch:
        return {}
    from mlpack.datasets.ref import open_part

    rows = next(iter(open_part(context.data, "calibration", model.inputs).batches(batch)), None)
    return {} if rows is None else {name: array.shape for name, array in rows.inputs.items()}


def check_opset(model: Model, target: Target) -> None:
    """Whether what would run an ONNX graph on this target reads its opset.

    Raises:
        UsageError: the opset is newer.
    """
    if model.format != "onnx":
        return
    from importlib.metadata import version

    import onnx

    from mlpack.core.versions import newest_opset

    proto = onnx.load(model.entry_path, load_external_data=False)
    opset = next((each.version for each in proto.opset_import if each.domain in {"", "ai.onnx"}), 0)
    library, known = ("tensorrt", _TENSORRT) if target.kind == "cuda" else ("onnxruntime", version("onnxruntime"))
    newest = newest_opset(library, known)
    if newest is not None and opset > newest:
        raise UsageError(
            f"{model.entry} has opset {opset}; {library} {known} reads opsets up to {newest}",
            f"export it with opset {newest} or older, or onnx.version_converter.convert_version(model, {newest})",
        )
