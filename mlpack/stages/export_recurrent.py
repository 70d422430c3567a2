"""Recurrent layers as one ONNX node each while a module is exported, for sequences of any length.

torch traces nn.LSTM and nn.GRU into their steps: the length of the example becomes a constant of the graph, or, where
torch keeps it free, every step a turn of an ONNX Loop, which no runtime is fast at and no quantizer looks into. Here
they are operators that the tracer does not open.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_ARGUMENTS = (
    "Tensor[] params, bool has_biases, int num_layers, float dropout, bool train, bool bidirectional, bool batch_first"
)
_LIBRARY = torch.library.Library("mlpack", "DEF")
_LIBRARY.define(f"gru(Tensor input, Tensor hx, {_ARGUMENTS}) -> (Tensor, Tensor)")
_LIBRARY.define(f"lstm(Tensor input, Tensor[] hx, {_ARGUMENTS}) -> (Tensor, Tensor, Tensor)")
_LIBRARY.impl("gru", torch.gru, "CompositeExplicitAutograd")
_LIBRARY.impl("lstm", torch.lstm, "CompositeExplicitAutograd")


def _gru_shapes(given: torch.Tensor, hidden: torch.Tensor, *rest: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return _states(given, hidden, rest), torch.empty_like(hidden)


def _lstm_shapes(given: torch.Tensor, hidden: Sequence[torch.Tensor], *rest: Any) -> tuple[torch.Tensor, ...]:
    return _states(given, hidden[0], rest), *(torch.empty_like(each) for each in hidden)


def _states(given: torch.Tensor, hidden: torch.Tensor, rest: tuple[Any, ...]) -> torch.Tensor:
    bidirectional = rest[5]
    return given.new_empty((*given.shape[:2], hidden.shape[2] * (2 if bidirectional else 1)))


torch.library.register_fake("mlpack::gru", _gru_shapes, lib=_LIBRARY)
torch.library.register_fake("mlpack::lstm", _lstm_shapes, lib=_LIBRARY)


@contextlib.contextmanager
def whole_recurrent_layers() -> Iterator[dict[Any, Callable[..., Any]]]:
    """While this is open nn.LSTM and nn.GRU are not taken apart; gives what the exporter is to write for them.

    Packed sequences and projected LSTMs go the exporter's own way.
    """
    from onnxscript.function_libs.torch_lib.ops import core

    # What nn.LSTM and nn.GRU call: a module that looks up in torch what it does not have itself.
    calls = torch._VF  # noqa: SLF001
    originals = {name: getattr(calls, name) for name in ("gru", "lstm")}
    calls.gru = lambda *given: (torch.ops.mlpack.gru if _is_plain(given) else originals["gru"])(*given)
    calls.lstm = lambda *given: (torch.ops.mlpack.lstm if _is_plain(given) else originals["lstm"])(*given)
    try:
        yield {torch.ops.mlpack.gru.default: core.aten_gru, torch.ops.mlpack.lstm.default: core.aten_lstm}
    finally:
        del calls.gru, calls.lstm


def _is_plain(given: tuple[Any, ...]) -> bool:
    """Whether a call is of padded sequences (the weights come third) and without projections."""
    hidden, weights = given[1], given[2]
    return isinstance(weights, list | tuple) and (
        isinstance(hidden, torch.Tensor) or hidden[0].shape[2] == hidden[1].shape[2]
    )
