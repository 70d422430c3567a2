"""LitServe as its documents have it for batching: one worker process, batches of stacked arrays."""

from __future__ import annotations

import os
from typing import Any

import litserve
import numpy as np
from session import DELAY_MS, MOST_ROWS, open_model


class Model(litserve.LitAPI):
    """The steps of a request, and of a batch between them."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - litserve tells it
        """Open the model."""
        self.run = open_model()

    def decode_request(self, request: dict[str, Any]) -> np.ndarray:
        """One sample, [inputs, ...]."""
        return np.asarray(request["samples"][0], np.int64)

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        """Samples together."""
        return np.stack(inputs)

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        """The first output for [rows, inputs, ...]."""
        return self.run(inputs)

    def unbatch(self, output: np.ndarray) -> list[np.ndarray]:
        """Rows apart."""
        return list(output)

    def encode_response(self, output: np.ndarray) -> dict[str, Any]:
        """What is answered."""
        return {"outputs": [output.tolist()]}


if __name__ == "__main__":
    model = Model(max_batch_size=MOST_ROWS, batch_timeout=DELAY_MS / 1000)
    server = litserve.LitServer(model, accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(os.environ["PORT"]), num_api_servers=1, generate_client_file=False)
