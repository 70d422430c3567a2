"""The floor of a model on a target, from its ONNX graph: how fast no run can be, and which batch its memory holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlpack.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mlpack.core.model import Model
    from mlpack.core.stage import Stage
    from mlpack.core.target import Target
    from mlpack.engine.context import Context


_TENSORRT = "11"


@dataclass(frozen=True)
class Floor:
    """Of the graph: operations (a multiplication and an addition are two) of one sample, weights, opset.

    `floor_ms` has ms by batch size and numerics, empty where no rate of the target is known. `largest_batch` is None
    where the target's memory is not known.
    """

    operations: float
    weights: int
    opset: int
    floor_ms: dict[int, dict[str, float]]
    largest_batch: int | None


def floor_of(models: Iterable[Model | None], latency: Stage, context: Context) -> Floor | None:
    """The floor of the first of the models that is an ONNX graph, at the batch sizes that are to be timed.

    Named dims other than the batch are 1, the shortest input.

    Raises:
        UsageError: the target's memory does not hold such a batch.
    """
    model = next((each for each in models if each is not None and each.format == "onnx"), None)
    if model is None:
        return None
    from mlpack.measure.graph_cost import graph_cost
    from mlpack.measure.roofline import floors_ms, largest_batch

    names = {spec.dims[0] for spec in model.inputs if spec.dims and isinstance(spec.dims[0], str)}
    batches: tuple[int, ...] = latency.model_dump().get("batches", (1,)) if model.dynamic_batch else (1,)
    costs = {batch: graph_cost(model.entry_path, {str(name): batch for name in names}) for batch in {1, *batches}}
    one, threads = costs[1], context.threads if context.target.here else None
    found = {batch: floors_ms(costs[batch], context.target, threads) for batch in batches}
    largest = largest_batch(one.weights, one.bytes_io, context.target)
    if largest is not None and max(batches) > largest:
        raise UsageError(
            f"batch {max(batches)} does not fit {context.target.title}: beside the weights, inputs and outputs of "
            f"{largest} samples fill its {context.target.memory_gb:g} GB",
            f"--set {latency.name}.batches=1,8",
        )
    told = {batch: ms for batch, ms in found.items() if ms}
    return Floor(one.operations, one.weights, one.opset, told, largest)


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
