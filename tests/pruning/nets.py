"""Nets whose widths hang together in ways that pruning has to follow, and what runs them."""

import torch
from torch import nn


class Grouped(nn.Module):
    """A grouped convolution between plain ones, and a depthwise one after it."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.norm = nn.BatchNorm2d(16)
        self.last = nn.Conv2d(16, 8, 1)
        self.head = nn.Linear(8, 4)

    def forward(self, image):
        x = torch.relu(self.grouped(torch.relu(self.stem(image))))
        x = torch.relu(self.last(torch.relu(self.norm(self.depthwise(x)))))
        return self.head(x.mean((2, 3)))


class Joined(nn.Module):
    """Two branches joined by torch.cat, flattened for a linear layer, and a gate over channels."""

    def __init__(self):
        super().__init__()
        self.left = nn.Conv2d(3, 8, 3, padding=1)
        self.right = nn.Conv2d(3, 12, 3, padding=1)
        self.mix = nn.Conv2d(20, 8, 1)
        self.down, self.up = nn.Linear(8, 4), nn.Linear(4, 8)
        self.head = nn.Linear(8 * 16, 5)

    def forward(self, image):
        x = torch.relu(self.mix(torch.cat([torch.relu(self.left(image)), torch.relu(self.right(image))], 1)))
        gate = torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3))))))
        return self.head(nn.functional.adaptive_avg_pool2d(x * gate[:, :, None, None], 4).flatten(1))


class Mixed(nn.Module):
    """Channels that are turned around: what is channel i here is another one there, which a graph does not see."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.last(torch.relu(self.first(x)).roll(1, -1) * torch.linspace(1, 2, self.first.out_features))


class Encoder(nn.Module):
    """Torch's own transformer layers, whose number of heads is tied to their width."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        return self.head(self.encoder(x).mean(1))


SHAPES = {Grouped: (3, 8, 8), Joined: (3, 8, 8), Mixed: (6,), Encoder: (5, 16)}


def make(kind, seed=0):
    """With random weights and, where there are norms, statistics of something."""
    torch.manual_seed(seed)
    net = kind().train()
    with torch.no_grad():
        net(torch.randn(8, *SHAPES[kind]))
    return net.eval()


def running(kind, count=3):
    """Runs a net on rows that are always the same."""
    rows = torch.randn(count, *SHAPES[kind], generator=torch.Generator().manual_seed(1))
    return lambda module: (module(rows),)
