"""Quantization-aware training: the graph that quantize made learns as it stands, and gets its new numbers back."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import onnx
import torch

from mlpack.backends.torch_runner import threads
from mlpack.core.backend_options import BackendOptions
from mlpack.core.external_data import load_whole
from mlpack.core.report import Report
from mlpack.errors import DataError, StageFailed, UsageError
from mlpack.quantization.shown import showing, tensors_of
from mlpack.quantization.trainable import Trainable
from mlpack.stages.calibration_rows import Rows
from mlpack.stages.samples import static_batch
from mlpack.training.loop import train
from mlpack.training.losses import (
    IGNORED_LABEL,
    answers_of,
    check_classes,
    labelled_output,
    to_labels,
    to_teacher,
)
from mlpack.training.sampling import Sampler

if TYPE_CHECKING:
    from collections.abc import Iterable

    import onnxruntime as ort

    from mlpack.core.dataset import Batch
    from mlpack.core.model import Model
    from mlpack.core.stage import Job
    from mlpack.datasets.rows import RowDataset
    from mlpack.quantization.shown import Arrays
    from mlpack.stages.quantize import Quantize
    from mlpack.stages.quantize_training import QuantizedTraining
    from mlpack.training.history import History

_INLINE_BYTES = 1_500_000_000
# Kernels that sum in another order agree to a millionth or better.
_SAME = 1e-3
_MEASURED_ROWS = 256
_COMPARED_ROWS = 4
_ALPHA = 0.5


def train_quantized(model: Model, job: Job, options: Quantize) -> Report:
    """Train the Q/DQ graph in `job.out` towards what the float graph answers, and labels where there are some.

    Raises:
        StageFailed: an operator of the graph cannot be trained through, or training ends in no numbers.
        DataError: there are no training rows, too few, or labels that fit no output.
    """
    path, told = job.out / model.entry, options.training
    dataset = job.dataset("train")
    if dataset is None:
        raise DataError("there is nothing to train on", "give training data: --train FILE.npz")
    size = told.batch if model.dynamic_batch else static_batch(model)
    rows_to_learn = cast("RowDataset", dataset)
    # Too few rows are refused here: the float graph of a static batch could not answer them either.
    sampler = Sampler(rows_to_learn, size, told.held_out, job.seed, fixed=not model.dynamic_batch)
    plain = onnx.load(path)
    module = Trainable(plain, learn_ranges=told.learn_ranges)
    with tempfile.TemporaryDirectory(dir=job.out.parent) as folder, threads(BackendOptions(threads=job.threads)):
        float_graph = showing(load_whole(model.entry_path), [], Path(folder) / "float.onnx", job.threads)
        lessons = _Lessons(module, float_graph, sampler.of(0), told)
        rows = list(_few(Rows(model, job, options).batches("comparing")))
        wanted = [_answers(float_graph, batch) for batch in rows]
        cut = _COMPARED_ROWS if model.dynamic_batch else size
        sqnr_before, one = _verified(module, plain, rows, wanted, Path(folder) / "before.onnx", cut, job.threads)
        history = train(
            module,
            lessons.loss,
            rows_to_learn,
            told.model_copy(update={"batch": size}),
            unfinished=job.unfinished,
            seed=job.seed,
            say=job.say,
            right=lessons.right,
            fixed=not model.dynamic_batch,
        )
        trained = module.written()
        job.say("verifying the trained graph")
        sqnr_after, two = _verified(module, trained, rows, wanted, Path(folder) / "after.onnx", cut, job.threads)
    large = trained.ByteSize() > _INLINE_BYTES
    # onnx adds to a file that is there, and leaves one behind that nothing needs any more.
    (job.out / f"{model.entry}.data").unlink(missing_ok=True)
    onnx.save(trained, path, save_as_external_data=large, location=f"{model.entry}.data")
    return Report(
        metrics={
            "training": {
                **_told(history),
                "alpha": lessons.alpha,
                "right_is": lessons.right_is,
                "sqnr_before": sqnr_before,
                "sqnr_after": sqnr_after,
                "difference": max(one, two),
            }
        },
        tables={"history": history.rows},
    )


def _told(history: History) -> dict[str, Any]:
    """As every training tells it."""
    first, best = history.rows[0], next(row for row in history.rows if row["step"] == history.best_step)
    return {
        "stopped": history.stopped,
        "steps": history.steps,
        "best_step": history.best_step,
        "seconds": history.seconds,
        "rows": history.learnt,
        "rows_held_out": history.held_out,
        "held_out_loss": [first["held_out_loss"], best["held_out_loss"]],
        "held_out_right": [first["held_out_right"], best["held_out_right"]],
    }


class _Lessons:
    """What the graph is trained towards: the answers of the float graph, and labels.

    What each output holds, and which the labels belong to, is seen on one batch.
    """

    def __init__(self, module: Trainable, teacher: ort.InferenceSession, first: Batch, told: QuantizedTraining) -> None:
        self._module, self._teacher = module, teacher
        self.alpha = _alpha(told, first)
        outputs = _tensors(_answers(teacher, first.inputs))
        labels = first.labels if self.alpha else None
        self._labelled = None if labels is None else labelled_output(outputs, labels, told.output, told.set_by)
        self._floats = list(answers_of(outputs, "numbers")) if self.alpha < 1 else []
        self._last: dict[str, torch.Tensor] = {}

    @property
    def right_is(self) -> Literal["labels"] | None:
        """What a right answer agrees with; None where there are no classes to be right about."""
        return "labels" if self._labelled is not None and self._labelled[1] != "numbers" else None

    def loss(self, batch: Batch) -> torch.Tensor:
        """The mean over the batch."""
        outputs = self._module(_tensors(batch.inputs))
        self._last = {name: each.detach() for name, each in outputs.items()}
        parts = []
        if self._labelled is not None:
            name, holds = self._labelled
            if holds != "numbers":
                assert batch.labels is not None
                check_classes(batch.labels, outputs[name].shape[-1], batch.rows)
            parts.append(self.alpha * to_labels(outputs[name], torch.as_tensor(batch.labels), holds))
        if self._floats:
            wanted = _tensors(_answers(self._teacher, batch.inputs))
            losses = [to_teacher(outputs[name], wanted[name], "numbers", 1.0) for name in self._floats]
            parts.append((1 - self.alpha) * torch.stack(losses).mean())
        return torch.stack(parts).sum()

    def right(self, batch: Batch) -> float | None:
        """The share of the last batch's scored places whose class is the label's; None where there are no classes."""
        if self._labelled is None or self.right_is is None:
            return None
        said, labels = self._last[self._labelled[0]].argmax(-1).reshape(-1), torch.as_tensor(batch.labels).reshape(-1)
        scored = labels != IGNORED_LABEL
        return float((said == labels)[scored].float().mean()) if bool(scored.any()) else 1.0


def _alpha(told: QuantizedTraining, first: Batch) -> float:
    """The share of the labels; of none where there are none.

    Raises:
        UsageError: a share was asked for, and there are none.
    """
    if first.labels is None and told.alpha:
        raise UsageError(
            f"quantize.training.alpha is {told.alpha:g}, and the training rows have no labels",
            "leave it out, or add labels",
        )
    return told.alpha if told.alpha is not None else _ALPHA if first.labels is not None else 0.0


def _few(batches: Iterable[Arrays]) -> Iterable[Arrays]:
    seen = 0
    for batch in batches:
        yield batch
        seen += len(next(iter(batch.values())))
        if seen >= _MEASURED_ROWS:
            return


def _verified(
    module: Trainable,
    graph: onnx.ModelProto,
    rows: list[Arrays],
    wanted: list[Arrays],
    path: Path,
    cut: int,
    threads: int,
) -> tuple[dict[str, float], float]:
    """SQNR of the outputs in dB, beside the float graph; and by how much a node of the module differs from the graph's.

    ONNX Runtime computes the graph literally, as it stands.

    Raises:
        StageFailed: a node answers something else in torch.
    """
    module.eval()
    tensors = module.tensors()
    session = showing(graph, tensors, path, threads, literal=True)
    few = {name: array[:cut] for name, array in rows[0].items()}
    difference, operator = module.farthest({**few, **tensors_of(session, tensors, few)})
    if not difference <= _SAME:
        raise StageFailed(
            f"in torch {operator} answers otherwise than on ONNX Runtime: relative difference {difference:.2g}",
            "leave --train out: int8 is then made without training",
        )
    got = [tensors_of(session, list(wanted[0]), batch) for batch in rows]
    sqnr = {}
    for name in (each for each, array in wanted[0].items() if array.dtype.kind == "f"):
        true, made = (_joined(name, those) for those in (wanted, got))
        if noise := _power(made - true, true):
            sqnr[name] = round(-10 * float(np.log10(noise)), 2)
    return sqnr, difference


def _joined(name: str, those: list[Arrays]) -> np.ndarray:
    """One output of all batches, flat: rows of batches may differ in length."""
    return np.concatenate([each[name].reshape(-1).astype(np.float64) for each in those])


def _power(values: np.ndarray, true: np.ndarray) -> float:
    """Of the cells that the original has a number for, over its own."""
    known = np.isfinite(true)
    own = float(np.square(true[known]).sum())
    return float(np.square(values[known]).sum()) / own if own else 0.0


def _answers(session: ort.InferenceSession, inputs: Arrays) -> Arrays:
    names = [each.name for each in session.get_outputs()]
    return tensors_of(session, names, {each.name: inputs[each.name] for each in session.get_inputs()})


def _tensors(arrays: Arrays) -> dict[str, torch.Tensor]:
    # Rows of a file that is open for reading only cannot be written to, and torch warns of that.
    return {name: torch.tensor(array) for name, array in arrays.items()}
