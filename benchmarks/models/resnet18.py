"""ResNet-18 with random weights, and images of noise: the shapes that others publish speeds of."""

from collections.abc import Iterator

import numpy as np
import torch
from transformers.models.resnet.configuration_resnet import ResNetConfig
from transformers.models.resnet.modeling_resnet import ResNetForImageClassification

SAMPLES, BATCH, SIZE = 160, 16, 224


class ResNet18(torch.nn.Module):
    """Images in, logits out."""

    def __init__(self) -> None:
        super().__init__()
        sizes = {"depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512]}
        self.network = ResNetForImageClassification(ResNetConfig(layer_type="basic", num_labels=1000, **sizes))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits [batch, 1000] of images [batch, 3, 224, 224]."""
        logits: torch.Tensor = self.network(pixel_values=image).logits
        return logits


def model() -> torch.nn.Module:
    """The same weights each time."""
    torch.manual_seed(0)
    return ResNet18().eval()


def data() -> Iterator[tuple[dict[str, np.ndarray], None]]:
    """Images [batch, 3, 224, 224] of standard normal noise."""
    draw = np.random.default_rng(0)
    for _ in range(0, SAMPLES, BATCH):
        yield {"image": draw.standard_normal((BATCH, 3, SIZE, SIZE), np.float32)}, None
