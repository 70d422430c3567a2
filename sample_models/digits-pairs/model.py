"""Two 8x8 digits in, two answers out: what they add up to, and whether they are the same digit."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

WEIGHTS = Path(__file__).parent / "weights.safetensors"


class DigitsPairs(nn.Module):
    """One convolutional tower reads both images; each head sees what is the same for either order of them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.features = nn.Linear(32 * 4 * 4, 64)
        self.mixed = nn.Linear(128, 128)
        self.sum = nn.Linear(128, 19)
        self.same = nn.Linear(128, 2)

    def tower(self, image: Tensor) -> Tensor:
        """image: [batch, 1, 8, 8]. Gives [batch, 64]."""
        inner = torch.relu(self.conv2(torch.relu(self.conv1(image))))
        return torch.relu(self.features(inner.flatten(1)))

    def forward(self, left: Tensor, right: Tensor) -> dict[str, Tensor]:
        """Both float32 [batch, 1, 8, 8], pixels in 0..1.

        Gives logits: `sum` [batch, 19] for 0 to 18, `same` [batch, 2] for different, same.
        """
        one, other = self.tower(left), self.tower(right)
        mixed = torch.relu(self.mixed(torch.cat([one + other, (one - other).abs()], 1)))
        return {"sum": self.sum(mixed), "same": self.same(mixed)}


def network() -> DigitsPairs:
    """The architecture alone, with random weights: what a state dict is loaded into."""
    return DigitsPairs()


def model() -> nn.Module:
    """The trained network in eval mode."""
    trained = network()
    trained.load_state_dict(load_file(WEIGHTS))
    return trained.eval()
