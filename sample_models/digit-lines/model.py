"""Reads a line of handwritten digits: convolutions, an LSTM in both directions, a class per column for CTC."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

WEIGHTS = Path(__file__).parent / "weights.safetensors"
CLASSES = 11
"""The ten digits, and last the blank of CTC: no digit begins here."""


class ConvBlock(nn.Module):
    """3x3 Conv-BN-ReLU, then the largest of each window of `pool` rows and columns."""

    def __init__(self, channels_in: int, channels_out: int, pool: tuple[int, int]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(channels_out)
        self.pool = nn.MaxPool2d(pool)

    def forward(self, features: Tensor) -> Tensor:
        """features: [batch, channels_in, height, width]. Height and width are divided by those of the pool."""
        pooled: Tensor = self.pool(torch.relu(self.bn(self.conv(features))))
        return pooled


class DigitLines(nn.Module):
    """Three blocks of 16, 32 and 64 channels, an LSTM over the columns, a linear layer with an output per class."""

    def __init__(self) -> None:
        super().__init__()
        self.block1 = ConvBlock(1, 16, (2, 2))
        self.block2 = ConvBlock(16, 32, (2, 2))
        self.block3 = ConvBlock(32, 64, (2, 1))
        self.lstm = nn.LSTM(64 * 3, 80, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * 80, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        """image: float32 [batch, 1, 24, 144], ink in 0..1.

        Gives logits [batch, 36, 11], one row for every four columns of pixels; the last class is the blank.
        """
        features = self.block3(self.block2(self.block1(image)))
        states: Tensor = self.lstm(features.flatten(1, 2).transpose(1, 2))[0]
        logits: Tensor = self.head(states)
        return logits


def network() -> DigitLines:
    """The architecture alone, with random weights: what a state dict is loaded into."""
    return DigitLines()


def model() -> nn.Module:
    """The trained network in eval mode."""
    trained = network()
    trained.load_state_dict(load_file(WEIGHTS))
    return trained.eval()
