"""measure_sensitivity: what each layer of a quantized graph costs in accuracy, when it alone is quantized."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from mlpack.core.report import Report
from mlpack.core.stage import BEFORE, Outcome, Stage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np

    from mlpack.core.dataset import Part
    from mlpack.core.model import Format, Model
    from mlpack.core.stage import Job
    from mlpack.quantization.sensitivity import Sensitivity


class MeasureSensitivity(Stage):
    """Measure the noise that each layer's quantization brings into the outputs, on calibration rows.

    The rival `before` is the graph that was quantized. A layer is a module of the user's, as far as its own nodes go,
    or a node that has none. `noise` is relative to the outputs' power; `share` is of the graph's multiply-accumulates;
    `weights` are the numbers in its matrices.
    """

    name: ClassVar[str] = "measure_sensitivity"
    accepts: ClassVar[tuple[Format, ...]] = ("onnx",)
    libraries: ClassVar[tuple[str, ...]] = ("onnx", "onnxruntime")
    code: ClassVar[tuple[str, ...]] = ("mlpack.quantization", "mlpack.stages.samples", "mlpack.stages.module_names")

    samples: int = Field(default=16, ge=1, description="calibration samples")
    batch: int = Field(default=8, ge=1, description="samples in one run")

    def reads(self) -> tuple[Part, ...]:
        """Rows to measure on."""
        return ("calibration",)

    def run(self, model: Model | None, job: Job) -> Outcome:
        """Run the graph once in float, once for each layer, and once quantized, for each batch."""
        assert model is not None
        from mlpack.quantization.coverage import compute_nodes, weights_by_node
        from mlpack.quantization.sensitivity import sensitivity
        from mlpack.stages import samples

        before = job.rivals[BEFORE]
        example, _ = samples.rows(before, job, "calibration", 1)
        work = {each.name: each.macs for each in compute_nodes(before.entry_path, example)}
        found = sensitivity(
            job.say, before.entry_path, model.entry_path, lambda nodes: _layer(nodes, work), self._rows(before, job),
            job.threads,
        )  # fmt: skip
        return Outcome(
            model=model,
            report=Report(
                metrics={"noise": found.whole, "samples": self.samples},
                tables={"layers": list(_told(found, work, weights_by_node(before.entry_path)))},
            ),
        )

    def _rows(self, model: Model, job: Job) -> Iterator[dict[str, np.ndarray]]:
        from mlpack.stages import samples

        dataset = job.dataset("calibration")
        size = self.batch if model.dynamic_batch else samples.static_batch(model)
        if dataset is None:
            yield samples.rows(model, job, "calibration", size)[0]
            return
        done = 0
        for batch in dataset.batches(size):
            yield batch.inputs
            done += len(batch)
            if done >= self.samples:
                return


def _layer(nodes: Sequence[str], work: Mapping[str, float]) -> str:
    """The module of the node that computes most, or that node."""
    from mlpack.stages.module_names import module_of

    main = max(nodes, key=lambda name: work.get(name, 0.0))
    return module_of(main) or main


def _told(found: Sensitivity, work: Mapping[str, float], weights: Mapping[str, int]) -> Iterator[dict[str, object]]:
    whole = sum(work.values()) or 1.0
    for layer, noise in found.noise.items():
        nodes = found.nodes[layer]
        share = sum(work.get(node, 0.0) for node in nodes) / whole
        numbers = sum(weights.get(node, 0) for node in nodes)
        yield {"layer": layer, "nodes": list(nodes), "noise": noise, "share": share, "weights": numbers}
