"""Rows that a small module can learn, and the modules that the tests train."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from mlpack.datasets import open_data
from mlpack.training.loop import train
from mlpack.training.options import Training

# Threads that share two busy cores take longer to meet than to compute.
torch.set_num_threads(1)

CLASSES = 3
WIDTH = 6


def arrays(count=120, seed=0):
    """Points around three corners: float32 [count, 6] and class numbers."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, count)
    return {"x": (random.standard_normal((count, WIDTH)) + 3 * np.eye(CLASSES, WIDTH)[labels]).astype(np.float32),
            "labels": labels}  # fmt: skip


def rows(folder, **told):
    path = Path(folder) / "train.npz"
    np.savez(path, **arrays(**told))
    return open_data(str(path))


def module(seed=0, dropout=0.2):
    """Everything that training has a state of: momenta, batch statistics, dropout."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(WIDTH, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, CLASSES)
    )


def nothing(steps):
    """Nothing happens after a step."""


class Towards:
    """Cross entropy of a module, counting what it was asked for."""

    def __init__(self, net, after=nothing):
        self.net, self.after, self.steps, self.modes = net, after, 0, []

    def loss(self, batch):
        self.modes.append(self.net.training)
        self.steps += self.net.training
        self.after(self.steps)
        self.answers = self.net(torch.from_numpy(batch.inputs["x"]))
        return functional.cross_entropy(self.answers, torch.from_numpy(batch.labels))

    def right(self, batch):
        return float((self.answers.argmax(1).numpy() == batch.labels).mean())


class Lessons(Training):
    set_by = "lessons"


def options(**told):
    return Lessons(**{"epochs": 6, "batch": 16, "learning_rate": 0.01, "patience": 0, "held_out": 0.2, **told})


def unheard(text, done=None, total=None):
    """Nobody listens."""


def trained(net, data, folder=None, after=nothing, seed=0, say=unheard, **told):
    """The history, and what the loss was asked for."""
    towards = Towards(net, after)
    folder = Path(folder or tempfile.mkdtemp())
    history = train(
        net, towards.loss, data, options(**told), unfinished=folder, seed=seed, say=say, right=towards.right
    )
    return history, towards


def state(net):
    return {name: tensor.numpy().tobytes() for name, tensor in net.state_dict().items()}
