"""Small networks with random weights, of shapes that the sample models lack: prediction.py learns from them too.

Each function without arguments gives one of them; images go into `images`, sequences into `sequences`, vectors into
`vectors`.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import torch
from torch import nn

SAMPLES, BATCH = 64, 16
SIZE, TOKENS, WIDTH, FEATURES = 64, 32, 64, 256


def images() -> Iterator[tuple[dict[str, np.ndarray], None]]:
    """Noise [batch, 3, 64, 64]."""
    return _noise("image", (3, SIZE, SIZE))


def sequences() -> Iterator[tuple[dict[str, np.ndarray], None]]:
    """Noise [batch, 32, 64]."""
    return _noise("sequence", (TOKENS, WIDTH))


def vectors() -> Iterator[tuple[dict[str, np.ndarray], None]]:
    """Noise [batch, 256]."""
    return _noise("vector", (FEATURES,))


def _noise(name: str, shape: tuple[int, ...]) -> Iterator[tuple[dict[str, np.ndarray], None]]:
    draw = np.random.default_rng(0)
    for _ in range(0, SAMPLES, BATCH):
        yield {name: draw.standard_normal((BATCH, *shape), np.float32)}, None


class Images(nn.Module):
    """A network over `image`."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.network = nn.Sequential(*layers)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """What the layers make of images [batch, 3, 64, 64]."""
        found: torch.Tensor = self.network(image)
        return found


class Vectors(nn.Module):
    """A network over `vector`."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.network = nn.Sequential(*(layer for pair in pairwise(widths) for layer in (nn.Linear(*pair), nn.ReLU())))

    def forward(self, vector: torch.Tensor) -> torch.Tensor:
        """What the layers make of vectors [batch, 256]."""
        found: torch.Tensor = self.network(vector)
        return found


class Recurrent(nn.Module):
    """A recurrent layer over `sequence` and a linear one over its last step."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.layer = layer
        self.head = nn.Linear(layer.hidden_size * (1 + layer.bidirectional), 10)

    def forward(self, sequence: torch.Tensor) -> torch.Tensor:
        """Logits [batch, 10] of sequences [batch, 32, 64]."""
        states, _ = self.layer(sequence)
        logits: torch.Tensor = self.head(states[:, -1])
        return logits


class Block(nn.Module):
    """Attention and two linear layers, each after a normalization and beside what goes past it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mixed, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The same shape again."""
        parts = self.mixed(self.before(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        found = nn.functional.scaled_dot_product_attention(*parts.unbind(0))
        x = x + self.out(found.transpose(1, 2).flatten(2))
        wide: torch.Tensor = self.narrow(nn.functional.gelu(self.wide(self.between(x))))
        return x + wide


class Encoder(nn.Module):
    """Blocks of attention over `sequence`."""

    def __init__(self, width: int, heads: int, blocks: int) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(WIDTH, width), nn.Linear(width, 10)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(blocks)))

    def forward(self, sequence: torch.Tensor) -> torch.Tensor:
        """Logits [batch, 10] of sequences [batch, 32, 64]."""
        logits: torch.Tensor = self.head(self.blocks(self.first(sequence)).mean(1))
        return logits


class Next(nn.Module):
    """A wide depthwise kernel, two linear layers over the channels, and what goes past them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depth = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The same shape again."""
        found = self.norm(self.depth(x).permute(0, 2, 3, 1))
        found = self.narrow(nn.functional.gelu(self.wide(found))).permute(0, 3, 1, 2)
        return x + found


def plain_convolutions() -> nn.Module:
    """Kernels of 3 x 3, wider from one to the next."""
    widths = (3, 32, 64, 128, 256)
    return _drawn(lambda: Images(*(layer for pair in pairwise(widths) for layer in _convolved(*pair)), *_head(256)))


def thin_convolutions() -> nn.Module:
    """Many layers of few channels."""
    widths = (3, 16, 16, 16, 24, 24, 24, 32, 32, 32)
    return _drawn(lambda: Images(*(layer for pair in pairwise(widths) for layer in _convolved(*pair)), *_head(32)))


def mobile() -> nn.Module:
    """Depthwise kernels between 1 x 1 ones, as in MobileNet."""
    return _drawn(lambda: _mobile((32, 64, 128, 128, 256, 256)))


def mobile_thin() -> nn.Module:
    """The same with few channels."""
    return _drawn(lambda: _mobile((16, 24, 32, 32, 48, 64)))


def next_small() -> nn.Module:
    """Patches of 4 x 4, then blocks as in ConvNeXt."""
    return _drawn(lambda: Images(nn.Conv2d(3, 64, 4, stride=4), Next(64), Next(64), Next(64), *_head(64)))


def wide_mlp() -> nn.Module:
    """Three wide linear layers."""
    return _drawn(lambda: Vectors(FEATURES, 1024, 1024, 1024, 16))


def deep_mlp() -> nn.Module:
    """Twelve narrow linear layers."""
    return _drawn(lambda: Vectors(FEATURES, *(128,) * 12, 16))


def lstm() -> nn.Module:
    """One layer of 128 cells."""
    return _drawn(lambda: Recurrent(nn.LSTM(WIDTH, 128, batch_first=True)))


def lstm_both_ways() -> nn.Module:
    """64 cells in each direction."""
    return _drawn(lambda: Recurrent(nn.LSTM(WIDTH, 64, batch_first=True, bidirectional=True)))


def gru() -> nn.Module:
    """One layer of 192 cells."""
    return _drawn(lambda: Recurrent(nn.GRU(WIDTH, 192, batch_first=True)))


def encoder() -> nn.Module:
    """Two blocks of attention, 128 wide."""
    return _drawn(lambda: Encoder(128, 4, 2))


def encoder_wide() -> nn.Module:
    """Four blocks of attention, 256 wide."""
    return _drawn(lambda: Encoder(256, 4, 4))


def _drawn(made: Callable[[], nn.Module]) -> nn.Module:
    """The same weights each time."""
    torch.manual_seed(0)
    return made().eval()


def _convolved(inner: int, outer: int) -> list[nn.Module]:
    stride = 2 if outer > inner > 3 else 1
    return [nn.Conv2d(inner, outer, 3, stride=stride, padding=1), nn.ReLU()]


def _mobile(widths: tuple[int, ...]) -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 3, stride=2, padding=1), nn.ReLU6()]
    for inner, outer in pairwise(widths):
        stride = 2 if outer > inner else 1
        layers += [nn.Conv2d(inner, inner, 3, stride=stride, padding=1, groups=inner), nn.ReLU6()]
        layers += [nn.Conv2d(inner, outer, 1), nn.ReLU6()]
    return Images(*layers, *_head(widths[-1]))


def _head(width: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)]
