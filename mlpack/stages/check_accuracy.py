"""check_accuracy: run a model over one part of the data on its backend and keep what each sample scored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, field_validator

from mlpack.core.arrays import save_arrays
from mlpack.core.dataset import Part
from mlpack.core.report import Report
from mlpack.core.stage import Outcome, Stage
from mlpack.errors import UsageError
from mlpack.stages.torch_imports import imports_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from mlpack.core.backend import Runner
    from mlpack.core.dataset import Batch, Dataset
    from mlpack.core.model import Format, Model
    from mlpack.core.stage import Job
    from mlpack.measure.metrics import Kept, Metric

KEPT = "kept.npz"
_ALONE_ROWS = 32


class CheckAccuracy(Stage):
    """Score a model. A check gives the model it was given and a report: facts, no verdict.

    `kept.npz` holds what the metric keeps of every sample, first axis samples, so that every comparison is
    paired, beside its row, cluster, group, and file where it is one. `batch_spread` is the largest relative L2
    difference of an output between the same samples alone and in a batch: models whose answers depend on their batch
    mates are found by it.
    """

    name: ClassVar[str] = "check_accuracy"
    accepts: ClassVar[tuple[Format, ...]] = ("torch", "onnx", "openvino", "tensorrt", "aotinductor", "torchscript")
    libraries: ClassVar[tuple[str, ...]] = ("torch", "onnxruntime", "openvino")
    code: ClassVar[tuple[str, ...]] = (
        "mlpack.stages.samples", "mlpack.measure.metrics", "mlpack.measure.scores", "mlpack.measure.user_metric",
    )  # fmt: skip
    keyed_by_threads: ClassVar[bool] = True

    part: Part = Field(default="confirming", description="which part of the data to score on")
    metric: str = Field(description="a metric's name, or file.py:function")
    metric_sha256: str | None = Field(default=None, description="of the metric's file, for a user's own")
    output: str | None = Field(default=None, description="the output that the metric reads")
    batch: int = Field(default=32, ge=1, description="evaluation batch size")
    reach: float | None = Field(
        default=None, description="scoring ends once no rest of the rows could reach this value"
    )

    @field_validator("metric")
    @classmethod
    def _known(cls, name: str) -> str:
        from mlpack.measure.metrics import check_name

        check_name(name)
        return name

    def keyed(self) -> dict[str, Any]:
        """Without `reach`: a whole score is the same with any, and one that ended early says what it can serve."""
        return self.model_dump(mode="json", exclude={"reach"})

    def served_by(self, report: Report) -> bool:
        """Whether it is of all rows, or ended at less than is to be reached now."""
        at_best = report.metrics.get("at_best")
        return at_best is None or (self.reach is not None and self._metric(labels=True).worse(at_best, self.reach))

    def _metric(self, *, labels: bool) -> Metric:
        from mlpack.measure.metrics import metric

        return metric(self.metric, labels=labels, output=self.output)

    def reads(self) -> tuple[Part, ...]:
        """The part that is scored."""
        return (self.part,)

    def imports(self, model: Model | None) -> tuple[str, ...]:
        """Those of a torch model."""
        return imports_of(model)

    def run(self, model: Model | None, job: Job) -> Outcome:
        """Score every sample of the part.

        Raises:
            UsageError: there is no data.
            DataError: labels do not fit the outputs.
        """
        assert model is not None
        assert model.backend is not None, "a model is scored on the backend that would serve it"
        import numpy as np

        from mlpack.measure.metrics import join

        dataset = job.dataset(self.part)
        if dataset is None:
            raise UsageError("an accuracy check needs data", "give labelled data with --data FILE.npz")
        measured = self._metric(labels=dataset.labelled)
        hope = _Hope(measured, len(dataset))
        kept: list[dict[str, np.ndarray]] = []
        beside: dict[str, list[np.ndarray]] = {"rows": [], "cluster": [], "group": [], "names": []}
        nonfinite = 0
        done = 0
        # The original says nothing of threads: it gets as many as every candidate.
        threads = model.backend_options.threads or job.threads
        options = model.backend_options.model_copy(update={"threads": threads})
        with job.backend(model.backend).open(model, job.target, options) as runner:
            spread = _batch_spread(model, runner, dataset, self.batch)
            for batch, outputs in run_over(model, runner, dataset, self.batch):
                nonfinite += sum(int(_nonfinite_rows(array)) for array in outputs.values())
                kept.append(measured.keep(outputs, batch.labels))
                beside["rows"].append(batch.rows)
                for name in ("cluster", "group", "names"):
                    if (values := getattr(batch, name)) is not None:
                        beside[name].append(np.asarray(values))
                done += len(batch)
                job.say(f"scoring on {model.backend}", done, len(dataset))
                hope.see(kept[-1])
                if hope.lost(self.reach):
                    break
        # Batches of about one length come in an order of their own: what is kept is in the order of the rows.
        order = np.argsort(np.concatenate(beside["rows"]), kind="stable")
        arrays = {name: array[order] for name, array in join(kept).items()}
        aside = {name: np.concatenate(pieces)[order] for name, pieces in beside.items() if pieces}
        save_arrays(job.out / KEPT, {**_prefixed(arrays), **aside})
        value = None if nonfinite or measured.name == "agreement" else float(measured.reduce(arrays))
        metrics: dict[str, Any] = {
            "value": value,
            "samples": done,
            "nonfinite": nonfinite,
            "batch": self.batch if model.dynamic_batch else None,
            "batch_spread": spread,
            # Of all rows, where it ended before the last.
            "at_best": hope.at_best if done < len(dataset) else None,
        }
        return Outcome(model=model, report=Report(metrics=metrics, files=(KEPT,)))


class _Hope:
    """What the value over all samples is if every one still to come gets the best score there is."""

    def __init__(self, measured: Metric, samples: int) -> None:
        self.at_best = measured.best
        self._measured, self._samples = measured, samples

    def see(self, kept: Kept) -> None:
        """What was kept of further samples."""
        if self.at_best is not None:
            assert self._measured.best is not None
            self.at_best += float((kept["score"] - self._measured.best).sum(dtype=float)) / self._samples

    def lost(self, reach: float | None) -> bool:
        """Whether not even that reaches so far."""
        return reach is not None and self.at_best is not None and self._measured.worse(self.at_best, reach)


def _prefixed(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"kept/{name}": array for name, array in arrays.items()}


def _nonfinite_rows(array: np.ndarray) -> int:
    import numpy as np

    if array.dtype.kind != "f":
        return 0
    return int((~np.isfinite(array)).reshape(len(array), -1).any(axis=1).sum())


def run_over(
    model: Model, runner: Runner, dataset: Dataset, size: int
) -> Iterator[tuple[Batch, dict[str, np.ndarray]]]:
    """Batches with their outputs; a model with a static batch gets its last batch padded and cut again.

    Raises:
        DataError: rows are longer than the model goes.
    """
    import numpy as np

    from mlpack.datasets.fit import check_sizes
    from mlpack.stages.samples import static_batch

    fixed = None if model.dynamic_batch else static_batch(model)
    for batch in dataset.batches(fixed or size):
        inputs = batch.inputs
        for spec in model.inputs:
            check_sizes(spec.name, inputs[spec.name].shape, spec, model.largest)
        short = fixed is not None and len(batch) < fixed
        if short:
            inputs = {name: np.resize(array, (fixed, *array.shape[1:])) for name, array in inputs.items()}
        outputs = runner(inputs)
        yield batch, {name: array[: len(batch)] for name, array in outputs.items()} if short else outputs


def _batch_spread(model: Model, runner: Runner, dataset: Dataset, size: int) -> float:
    import numpy as np

    from mlpack.stages.samples import difference

    if not model.dynamic_batch or size == 1:
        return 0.0
    batch = next(iter(dataset.batches(min(size, _ALONE_ROWS))))
    together = runner(batch.inputs)
    alone = [runner({name: array[row : row + 1] for name, array in batch.inputs.items()}) for row in range(len(batch))]
    return max(
        difference(array, np.concatenate([outputs[name] for outputs in alone]))[1] for name, array in together.items()
    )
