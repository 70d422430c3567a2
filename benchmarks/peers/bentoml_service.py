"""BentoML as its documents have it for batching: one worker, adaptive batching, arrays in JSON."""

from __future__ import annotations

import bentoml
import numpy as np
from session import MOST_ROWS, open_model


@bentoml.service(workers=1)
class Model:
    """Opens the model once, and is called with batches."""

    def __init__(self) -> None:
        self.run = open_model()

    @bentoml.api(batchable=True, batch_dim=0, max_batch_size=MOST_ROWS)
    def predict(self, samples: np.ndarray) -> np.ndarray:
        """The first output for [rows, inputs, ...]."""
        return self.run(np.asarray(samples, np.int64))
