"""MLServer as its documents have it for batching: V2 tensors, batches made before the pool of one inference worker."""

from __future__ import annotations

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from session import open_model


class Model(MLModel):
    """Opens the model once, and is called with batches."""

    async def load(self) -> bool:
        """Open the model."""
        self.run = open_model()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """The first output for the inputs of a batch."""
        samples = np.stack([NumpyCodec.decode_input(each) for each in payload.inputs], axis=1)
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("output", self.run(samples))])
