"""Tiny real modules of each family: what a user's factory file may hold."""

import torch
from torch import nn


class ConvBlock(nn.Module):
    def __init__(self, given, made):
        super().__init__()
        self.conv = nn.Conv2d(given, made, 3, padding=1)
        self.norm = nn.BatchNorm2d(made)

    def forward(self, x):
        return torch.relu(self.norm(self.conv(x)))


class ConvNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = ConvBlock(3, 8)
        self.body = ConvBlock(8, 16)
        self.head = nn.Linear(16, 4)

    def forward(self, image):
        return self.head(self.body(self.stem(image)).mean((2, 3)))


class DeadChannels(ConvNet):
    """A filter of zeros, one that no input can wake, and a neuron of zeros in the head."""

    def __init__(self):
        super().__init__()
        with torch.no_grad():
            self.stem.conv.weight[1] = 0
            self.body.norm.bias[2] = -100
            self.head.weight[3] = 0


class Residual(ConvNet):
    """A shortcut as it is, and one through a convolution."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Conv2d(8, 8, 3, padding=1)
        self.wide = nn.Conv2d(8, 16, 3, padding=1)
        self.shortcut = nn.Conv2d(8, 16, 1)

    def forward(self, image):
        x = self.stem(image)
        x = torch.relu(self.inner(x) + x)
        x = torch.relu(self.wide(x) + self.shortcut(x))
        return self.head(x.mean((2, 3)))


class Mlp(nn.Module):
    def __init__(self, width=32):
        super().__init__()
        self.first = nn.Linear(8, width)
        self.last = nn.Linear(width, 3)

    def forward(self, x):
        return self.last(torch.relu(self.first(x)))


class Attention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x):
        weights = torch.softmax(self.query(x) @ self.key(x).transpose(1, 2) / x.shape[-1] ** 0.5, -1)
        return self.out(weights @ self.value(x))


class Heads(Attention):
    """Two heads, as transformers have them."""

    def forward(self, x):
        query, key, value = (
            each(x).unflatten(-1, (2, -1)).transpose(1, 2) for each in (self.query, self.key, self.value)
        )
        weights = torch.softmax(query @ key.transpose(2, 3) * query.shape[-1] ** -0.5, -1)
        return self.out((weights @ value).transpose(1, 2).flatten(2))


class Layer(nn.Module):
    def __init__(self, width, attention=Attention):
        super().__init__()
        self.attention = attention(width)
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)

    def forward(self, x):
        x = self.norm(x + self.attention(x))
        return x + self.down(nn.functional.gelu(self.up(x)))


class Transformer(nn.Module):
    def __init__(self, width=32, attention=Attention):
        super().__init__()
        self.embedding = nn.Embedding(50, width)
        self.layers = nn.ModuleList(Layer(width, attention) for _ in range(2))
        self.head = nn.Linear(width, 3)

    def forward(self, tokens):
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean(1))


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.recurrent = nn.LSTM(6, 16, batch_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, frames):
        states, _ = self.recurrent(frames)
        return self.head(states[:, -1])


class Reader(nn.Module):
    """Recurrent layers over tokens of any number: the last one reads in both directions."""

    def __init__(self, kind):
        super().__init__()
        self.embedding = nn.Embedding(50, 6)
        self.recurrent = kind(6, 8, num_layers=2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(16, 3)

    def forward(self, tokens):
        states, _ = self.recurrent(self.embedding(tokens))
        return self.head(states.mean(1))


class Siamese(nn.Module):
    """One layer reads two inputs; its weight is square, so turned the wrong way it still fits."""

    def __init__(self):
        super().__init__()
        self.shared = nn.Linear(8, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, left, right):
        return self.head(torch.relu(self.shared(left)) - torch.relu(self.shared(right)))


class Pair(nn.Module):
    """Two inputs, outputs in a tree."""

    def __init__(self):
        super().__init__()
        self.left = nn.Linear(4, 5)
        self.right = nn.Linear(6, 5)

    def forward(self, a, b):
        mixed = self.left(a) * self.right(b)
        return {"logits": mixed.sum(-1, keepdim=True), "parts": {"mixed": mixed, "right": self.right(b)}}


class Branching(nn.Module):
    """Control flow that depends on values."""

    def __init__(self):
        super().__init__()
        self.one = nn.Linear(4, 2)
        self.other = nn.Linear(4, 2)

    def forward(self, x):
        return self.one(x) if x.sum() > 0 else self.other(x)


class Unrolled(nn.Module):
    """A recurrence written as a loop: for torch.jit.script."""

    def __init__(self):
        super().__init__()
        self.cell = nn.Linear(9, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = torch.zeros(x.shape[0], 4)
        for step in range(x.shape[1]):
            state = torch.tanh(self.cell(torch.cat([x[:, step], state[:, :3]], 1)))
        return state


class Elementwise(nn.Module):
    """Nothing that multiplies and accumulates."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x):
        return torch.sigmoid(x) * self.scale


class Wide(Mlp):
    """A weight that fp16 cannot hold."""

    def __init__(self):
        super().__init__()
        with torch.no_grad():
            self.first.weight[0, 0] = 70000.0


class Twice(nn.Module):
    """Does some of its work twice over: there is something to simplify."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.last = nn.Linear(8, 3)

    def forward(self, x):
        x = self.first(x)
        shape = torch.tensor([[1.0, 2.0, 3.0, 4.0]]).reshape(2, 2).t().reshape(4)
        scale = (shape * 2 + 1).repeat(2)
        return self.last(x * scale)


def _made(kind):
    torch.manual_seed(0)
    return kind()


def conv_net(kind=ConvNet):
    torch.manual_seed(0)
    net = kind().train()
    with torch.no_grad():  # so that the batch norms have learnt something
        for _ in range(3):
            net(torch.randn(16, 3, 8, 8))
    return net


def dead_channels():
    return conv_net(DeadChannels)


def residual():
    return conv_net(Residual)


def mlp():
    return _made(Mlp)


def transformer():
    return _made(Transformer)


def headed():
    torch.manual_seed(0)
    return Transformer(attention=Heads).eval()


def tagger():
    return _made(Tagger)


def gru_reader():
    torch.manual_seed(0)
    return Reader(nn.GRU)


def lstm_reader():
    torch.manual_seed(0)
    return Reader(nn.LSTM)


def siamese():
    return _made(Siamese)


def pair():
    return _made(Pair)


def branching():
    return _made(Branching)


def elementwise():
    return _made(Elementwise)


def wide():
    return _made(Wide)


def twice():
    return _made(Twice)
