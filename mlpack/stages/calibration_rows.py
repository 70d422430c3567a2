"""The rows that static int8 and GPTQ are calibrated on, as batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlpack.errors import UsageError
from mlpack.stages.samples import static_batch

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from mlpack.core.model import Model
    from mlpack.core.stage import Job
    from mlpack.stages.quantize import Quantize


class Rows:
    """The rows to calibrate on.

    Raises:
        UsageError: there are none.
    """

    def __init__(self, model: Model, job: Job, options: Quantize) -> None:
        dataset = job.dataset("calibration")
        if dataset is None:
            gptq = options.method == "gptq"
            raise UsageError(
                f"{'gptq' if gptq else 'static int8'} needs calibration data",
                "give labelled data with --data FILE.npz, or "
                + ("method: hqq, which needs none" if gptq else "try the mechanics with --calibration random:64"),
            )
        self.samples = min(options.samples, len(dataset))
        self.fingerprint = dataset.fingerprint
        self._dataset, self._say = dataset, job.say
        self._size = options.batch if model.dynamic_batch else static_batch(model)

    def batches(self, why: str) -> Iterator[dict[str, np.ndarray]]:
        """Feeds by input name."""
        done = 0
        for batch in self._dataset.batches(self._size):
            self._say(why, done, self.samples)
            yield {name: array[: self.samples - done] for name, array in batch.inputs.items()}
            done += len(batch)
            if done >= self.samples:
                return
