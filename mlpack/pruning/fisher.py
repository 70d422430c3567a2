"""What each unit is worth: how much the likelihood of the model's own answers, or of labels, depends on it.

A unit is gated where it is read. The mean square of the gate's gradient over samples, with answers drawn from the model
itself, is the diagonal of its Fisher information: half of it is the loss, to second order, of closing the gate.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from torch.nn import functional

from mlpack.errors import StageFailed
from mlpack.pruning.running import layer_by_layer

if TYPE_CHECKING:
    from mlpack.pruning.groups import Group

Likelihood = Callable[[Sequence[torch.Tensor]], torch.Tensor]
"""The log-likelihood of answers, summed over samples."""
Answers = Literal["logits", "probabilities", "numbers"]
"""What an output holds: scores of classes, their probabilities, or numbers that mean themselves."""

_LEAST = 1e-8


def own_answers(seed: int, kinds: Sequence[Answers]) -> Likelihood:
    """Of answers drawn from the outputs, each of its kind: a class, or a normal with the output's spread."""
    generator = torch.Generator().manual_seed(seed)

    def likelihood(outputs: Sequence[torch.Tensor]) -> torch.Tensor:
        parts = []
        for made, kind in zip(outputs, kinds, strict=True):
            if not made.requires_grad:
                continue
            if kind != "numbers":
                chances = _log_chances(made, kind)
                drawn = torch.multinomial(chances.detach().exp(), 1, generator=generator)
                parts.append(chances.gather(1, drawn).sum())
            else:
                spread = made.detach().std().clamp_min(torch.finfo(made.dtype).tiny)
                noise = torch.randn(made.shape, generator=generator, dtype=made.dtype)
                parts.append((made * noise / spread).sum())
        if not parts:
            raise _no_gradient()
        return torch.stack(parts).sum()

    return likelihood


def given_labels(labels: torch.Tensor, at: int, kind: Answers) -> Likelihood:
    """Of the labels of these samples in the output at this place, which is of this kind.

    A class of -100 is not scored, as in torch's cross entropy; its sum leaves a batch of nothing else at zero.
    """

    def likelihood(outputs: Sequence[torch.Tensor]) -> torch.Tensor:
        made = outputs[at]
        if not made.requires_grad:
            raise _no_gradient()
        if kind == "numbers":
            return -(made - labels.to(made.dtype).reshape(made.shape)).square().sum() / 2
        return -functional.nll_loss(_log_chances(made, kind), labels.reshape(-1).long(), reduction="sum")

    return likelihood


def _no_gradient() -> StageFailed:
    return StageFailed(
        "no output of this module has a gradient (they are whole numbers, or requires_grad is off): what a unit is "
        "worth cannot be told from them",
        "let it give scores, too; a mask can go by the weights alone: --set prune.criterion=magnitude",
    )


def _log_chances(made: torch.Tensor, kind: Answers) -> torch.Tensor:
    """[places, classes]: the logarithm of each class's probability."""
    found = made.clamp_min(_LEAST).log() if kind == "probabilities" else torch.log_softmax(made, -1)
    return found.flatten(0, -2)


def fisher_scores(
    module: nn.Module,
    groups: Sequence[Group],
    batches: Iterable[tuple[int, Callable[[nn.Module], Sequence[torch.Tensor]], Likelihood]],
) -> dict[Group, tuple[float, ...]]:
    """The score of each unit of each group.

    A batch is its number of samples, what runs a module on them, and the likelihood of their answers.
    """
    readers = {part.path for group in groups for part in group.parts if part.side == "in"}
    sums = {group: torch.zeros(group.units, dtype=torch.float64) for group in groups}
    samples = 0
    for count, run, likelihood in batches:
        slopes = _slopes(module, readers, count, run, likelihood)
        for group in groups:
            sums[group] += _by_unit(group, slopes, count).square().sum(0)
        samples += count
    return {group: tuple((found / (2 * max(samples, 1))).tolist()) for group, found in sums.items()}


def _slopes(
    module: nn.Module,
    readers: set[str],
    count: int,
    run: Callable[[nn.Module], Sequence[torch.Tensor]],
    likelihood: Likelihood,
) -> dict[str, torch.Tensor]:
    """By layer: what closing the gate of each of its inputs would change, sample by channel, to first order."""
    given: dict[str, list[torch.Tensor]] = defaultdict(list)

    def keeping(path: str) -> Any:
        def hook(_: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            if args[0].requires_grad:
                args[0].retain_grad()
                given[path].append(args[0])

        return hook

    hooks = [module.get_submodule(path).register_forward_pre_hook(keeping(path)) for path in sorted(readers)]
    try:
        with torch.enable_grad(), layer_by_layer():
            torch.autograd.backward(likelihood(run(module)))
    finally:
        for hook in hooks:
            hook.remove()
        module.zero_grad(set_to_none=True)
    return {
        path: torch.stack([_by_sample(module.get_submodule(path), each, count) for each in calls]).sum(0)
        for path, calls in given.items()
    }


def _by_sample(layer: nn.Module, given: torch.Tensor, count: int) -> torch.Tensor:
    """[samples, channels]: value times slope, summed over places."""
    assert given.grad is not None
    product = (given.detach() * given.grad).double()
    if not isinstance(layer, nn.Linear):
        return product.flatten(2).sum(2)
    # Places may be folded into the batch, sample by sample.
    return product.reshape(count, -1, product.shape[-1]).sum(1)


def _by_unit(group: Group, slopes: dict[str, torch.Tensor], count: int) -> torch.Tensor:
    """[samples, units], over all layers that read the group."""
    found = torch.zeros(count, group.units, dtype=torch.float64)
    for part in group.parts:
        if part.side == "in" and part.path in slopes:
            channels = torch.tensor([channel for unit in part.channels for channel in unit])
            units = torch.tensor([unit for unit, each in enumerate(part.channels) for _ in each])
            found.index_add_(1, units, slopes[part.path][:, channels])
    return found
