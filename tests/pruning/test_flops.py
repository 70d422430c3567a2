"""What a module computes, held to numbers that are counted by hand: two operations for each multiply-add."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mlpack.pruning.flops import work_of

ROWS, LENGTH, WIDTH, HEADS = 3, 10, 16, 4
# Scores and the sum over values, each a product of [length, width / heads] and as much again, by head.
ATTENTION = 2 * (2 * ROWS * HEADS * LENGTH * LENGTH * (WIDTH // HEADS))


class Sdpa(nn.Module):
    """Torch's fused attention, as transformers calls it."""

    def __init__(self):
        super().__init__()
        self.all = nn.Linear(WIDTH, 3 * WIDTH)

    def forward(self, x):
        query, key, value = (each.unflatten(-1, (HEADS, -1)).transpose(1, 2) for each in self.all(x).chunk(3, -1))
        return nn.functional.scaled_dot_product_attention(query, key, value)


class Attending(nn.Module):
    """Torch's own layer, which runs otherwise where its weights are asked for."""

    def __init__(self, *, weights):
        super().__init__()
        self.inner, self.weights = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True), weights

    def forward(self, x):
        return self.inner(x, x, x, need_weights=self.weights)[0]


def recurrent(kind, gates, **told):
    """A layer, and its FLOPs: each gate is a product of the input and one of the state, at each place."""
    layers, ways = told.get("num_layers", 1), 2 if told.get("bidirectional") else 1
    widths = [WIDTH] + [ways * 6] * (layers - 1)
    flops = sum(2 * ROWS * LENGTH * ways * gates * 6 * (width + 6) for width in widths)
    return kind(WIDTH, 6, batch_first=True, **told), flops


PROJECTED = 2 * ROWS * LENGTH * WIDTH * 3 * WIDTH
CASES = {
    "linear": (nn.Linear(WIDTH, 5), 2 * ROWS * LENGTH * WIDTH * 5),
    # Ten places of a convolution over three of them.
    "conv": (nn.Conv1d(LENGTH, 7, 3, padding=1), 2 * ROWS * WIDTH * 7 * LENGTH * 3),
    "sdpa": (Sdpa(), PROJECTED + ATTENTION),
    "mha": (Attending(weights=False), PROJECTED + ATTENTION + 2 * ROWS * LENGTH * WIDTH * WIDTH),
    "mha_weights": (Attending(weights=True), PROJECTED + ATTENTION + 2 * ROWS * LENGTH * WIDTH * WIDTH),
    "lstm": recurrent(nn.LSTM, 4),
    "lstm_both_ways": recurrent(nn.LSTM, 4, num_layers=2, bidirectional=True),
    "gru": recurrent(nn.GRU, 3),
    "rnn": recurrent(nn.RNN, 1),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_counted_is_what_is_reckoned_by_hand(name):
    module, flops = CASES[name]
    rows = torch.randn(ROWS, LENGTH, WIDTH)
    assert work_of(module.eval(), lambda one: (one(rows),)).all_flops == flops
