"""A small residual network for 28x28 handwritten digits: convolutions, batch norms and shortcuts."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

WEIGHTS = Path(__file__).parent / "weights.safetensors"


class ResidualBlock(nn.Module):
    """Two 3x3 Conv-BN with a shortcut; a 1x1 Conv-BN shortcut where the shape changes."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride, bias=False),
                nn.BatchNorm2d(channels_out),
            )

    def forward(self, features: Tensor) -> Tensor:
        """features: [batch, channels_in, height, width]. Height and width are divided by the stride."""
        inner = torch.relu(self.bn1(self.conv1(features)))
        return torch.relu(self.bn2(self.conv2(inner)) + self.shortcut(features))


class DigitsResNet(nn.Module):
    """A 3x3 stem, three residual blocks of 16, 32 and 64 channels, average pooling, one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        self.block1 = ResidualBlock(16, 16, stride=1)
        self.block2 = ResidualBlock(16, 32, stride=2)
        self.block3 = ResidualBlock(32, 64, stride=2)
        self.head = nn.Linear(64, 10)

    def forward(self, image: Tensor) -> Tensor:
        """image: float32 [batch, 1, 28, 28], ink in 0..1. Gives logits [batch, 10]."""
        features = torch.relu(self.bn(self.conv(image)))
        features = self.block3(self.block2(self.block1(features)))
        logits: Tensor = self.head(features.mean((2, 3)))
        return logits


def network() -> DigitsResNet:
    """The architecture alone, with random weights: what a state dict is loaded into."""
    return DigitsResNet()


def model() -> nn.Module:
    """The trained network in eval mode."""
    trained = network()
    trained.load_state_dict(load_file(WEIGHTS))
    return trained.eval()
