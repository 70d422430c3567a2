"""A two-layer perceptron for 8x8 digits: the smallest real model here, for tests that must be fast."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

WEIGHTS = Path(__file__).parent / "weights.safetensors"


class TinyMlp(nn.Module):
    """64 pixels -> 48 hidden units -> 10 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(64, 48)
        self.head = nn.Linear(48, 10)

    def forward(self, features: Tensor) -> Tensor:
        """features: float32 [batch, 64], pixels in 0..1, row by row. Gives logits [batch, 10]."""
        logits: Tensor = self.head(torch.relu(self.hidden(features)))
        return logits


def network() -> TinyMlp:
    """The architecture alone, with random weights: what a state dict is loaded into."""
    return TinyMlp()


def model() -> nn.Module:
    """The trained network in eval mode."""
    trained = network()
    trained.load_state_dict(load_file(WEIGHTS))
    return trained.eval()
