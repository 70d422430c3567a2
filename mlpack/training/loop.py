"""The training loop: AdamW, warm-up and cosine, the best weights kept, to the bit the same after a kill."""

from __future__ import annotations

import math
import random
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from mlpack.errors import ModelError, StageFailed
from mlpack.training.checkpoint import Checkpoint
from mlpack.training.history import History
from mlpack.training.sampling import Sampler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mlpack.core.dataset import Batch
    from mlpack.core.stage import Say
    from mlpack.training.history import Stopped
    from mlpack.training.options import Training
    from mlpack.training.sampling import Rows

FILE = "training.pt"
# A pass over more rows than this many steps take is evaluated on the way.
_MOST_STEPS_APART = 200
# After so many steps it is known what a step takes, and how many of them the time allows.
_TRIAL_STEPS = 20
# The rest is for a machine that slows down.
_SHARE_PLANNED = 0.95
_TOLD_S = 0.5


def train(
    module: torch.nn.Module,
    loss: Callable[[Batch], torch.Tensor],
    rows: Rows,
    options: Training,
    *,
    unfinished: Path,
    seed: int,
    say: Say,
    right: Callable[[Batch], float | None] | None = None,
    fixed: bool = False,
) -> History:
    """Train the module in place; it ends in eval mode with the weights whose held-out loss was the lowest.

    Args:
        module: all parameters that require a gradient are learnt, also those that only the loss uses.
        loss: the mean over a batch's rows, of a module in training or in eval mode.
        rows: the training rows; those that tell when to stop are taken out of them.
        options: how.
        unfinished: a folder that outlives a kill; what is found there is gone on from. It has to belong to this very
            training: the same module, loss, rows, options and seed.
        seed: of all that is drawn, dropout too. With the same threads of one machine the same weights come out.
        say: hears how far it is.
        right: the share of a held-out batch that is right, asked right after the loss of the same batch.
        fixed: the module takes batches of exactly `options.batch` rows.

    Raises:
        DataError: there are too few rows.
        ModelError: nothing of the module can learn.
        StageFailed: the loss is no number, or what is found was kept by the training of another module.
    """
    sampler = Sampler(rows, options.batch, options.held_out, seed, fixed=fixed)
    with _repeatable():
        return _Run(module, loss, sampler, options, unfinished, seed, say, right).to_end()


@contextmanager
def _repeatable() -> Iterator[None]:
    """Within it torch takes the deterministic of two ways to compute something, where there is one."""
    before = torch.are_deterministic_algorithms_enabled()
    only_warned = torch.is_deterministic_algorithms_warn_only_enabled()
    state = torch.get_rng_state()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=only_warned)
        torch.set_rng_state(state)


class _Run:
    """One training, from its start or from its checkpoint to its end."""

    def __init__(
        self,
        module: torch.nn.Module,
        loss: Callable[[Batch], torch.Tensor],
        sampler: Sampler,
        options: Training,
        unfinished: Path,
        seed: int,
        say: Say,
        right: Callable[[Batch], float | None] | None,
    ) -> None:
        self._module, self._loss, self._right = module, loss, right
        self._sampler, self._options, self._seed, self._say = sampler, options, seed, say
        self._tensors: dict[str, torch.Tensor] = dict([*module.named_parameters(), *module.named_buffers()])
        self._learnt = [each for each in module.parameters() if each.requires_grad]
        if not self._learnt:
            raise ModelError("nothing of the module can learn", "its parameters have requires_grad off: turn it on")
        self._optimizer = torch.optim.AdamW(_groups(self._learnt, options.weight_decay), lr=options.learning_rate)
        self._checkpoint = Checkpoint(unfinished / FILE, options.checkpoint_s)
        self._every = min(sampler.steps_per_epoch, _MOST_STEPS_APART)
        self._whole = options.epochs * sampler.steps_per_epoch
        self._step, self._total, self._planned = 0, self._whole, options.seconds is None
        # A batch of one row has no variance, and where it has places only that of one sample.
        norms = "frozen" if sampler.batch == 1 else options.batch_norm
        self._history = History(learnt=sampler.learnt, held_out=sampler.held_out, batch_norm=norms)
        self._best: dict[str, torch.Tensor] = {}
        self._best_loss, self._waited = math.inf, 0
        self._losses: list[float] = []
        self._spent_before, self._began = 0.0, time.monotonic()
        self._steps_here, self._steps_s, self._evaluation_s = 0, 0.0, 0.0
        self._text, self._told = "training", -math.inf

    def to_end(self) -> History:
        """Learn until something ends it, then take the best weights."""
        if not self._resumed():
            self._evaluate()
        while (stopped := self._stopped()) is None:
            self._learn()
            self._plan()
            if self._step % self._every == 0 or self._step == self._total:
                self._evaluate()
            if self._checkpoint.due():
                self._checkpoint.write(self._state())
        if self._step != self._history.rows[-1]["step"]:
            self._evaluate()
        _put(self._tensors, self._best)
        self._module.eval()
        self._history.stopped = "seconds" if stopped == "all epochs" and self._total < self._whole else stopped
        self._history.steps, self._history.seconds = self._step, round(self._spent(), 3)
        return self._history

    def _stopped(self) -> Stopped | None:
        if self._options.patience and self._waited >= self._options.patience:
            return "no better for long"
        if self._step >= self._total:
            return "all epochs"
        limit = self._options.seconds
        return "seconds" if limit is not None and self._spent() + self._evaluation_s >= limit else None

    def _spent(self) -> float:
        return self._spent_before + time.monotonic() - self._began

    def _learn(self) -> None:
        """One step. It draws from a seed of its own, so that no generator's state has to be kept."""
        started = time.monotonic()
        _draw_from(self._seed, self._step)
        _to_training(self._module, self._history.batch_norm)
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate()
        loss = self._loss(self._sampler.of(self._step))
        if not loss.requires_grad:
            raise ModelError(
                "no gradient reaches the module's weights: its forward() turns them off",
                "take torch.no_grad() and detach() out of forward()",
            )
        value = float(loss.detach())
        if not math.isfinite(value):
            raise self._diverged(value)
        self._optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self._learnt, self._options.clip)
        self._optimizer.step()
        self._step += 1
        self._losses.append(value)
        self._steps_here += 1
        self._steps_s += time.monotonic() - started
        self._tell()

    def _rate(self) -> float:
        """Up in a line, then down in half a cosine."""
        rising = max(1, round(self._options.warmup * self._total))
        if self._step < rising:
            return self._options.learning_rate * (self._step + 1) / rising
        done = (self._step - rising) / max(1, self._total - rising)
        return self._options.learning_rate * (1 + math.cos(math.pi * min(done, 1.0))) / 2

    def _plan(self) -> None:
        """Once a few steps have shown what one takes, cut the schedule to those that the time allows."""
        if self._planned or self._options.seconds is None or self._step < _TRIAL_STEPS:
            return
        each = self._steps_s / self._steps_here + self._evaluation_s / self._every
        left = _SHARE_PLANNED * (self._options.seconds - self._spent())
        self._total = min(self._total, self._step + max(0, int(left / each)))
        self._planned = True

    def _evaluate(self) -> None:
        """The loss on the rows that are held out; where it is the lowest so far, the weights are kept."""
        started = time.monotonic()
        self._module.eval()
        total, rights, seen = 0.0, 0.0, 0
        right: float | None = None
        with torch.no_grad():
            for batch in self._sampler.unseen():
                total += float(self._loss(batch)) * len(batch)
                right = None if self._right is None else self._right(batch)
                rights += (right or 0.0) * len(batch)
                seen += len(batch)
        held_out = total / seen
        if not math.isfinite(held_out):
            raise self._diverged(held_out)
        self._evaluation_s = time.monotonic() - started
        self._waited += 1
        if held_out < self._best_loss:
            self._best_loss, self._waited, self._history.best_step = held_out, 0, self._step
            self._best = {name: tensor.detach().clone() for name, tensor in self._tensors.items()}
        row = {
            "step": self._step,
            "epoch": round(self._step / self._sampler.steps_per_epoch, 2),
            "loss": float(np.mean(self._losses)) if self._losses else None,
            "held_out_loss": held_out,
            "held_out_right": None if right is None else rights / seen,
            "seconds": round(self._spent(), 2),
        }
        self._history.rows.append(row)
        self._losses = []
        self._tell(now=True)

    def _diverged(self, loss: float) -> StageFailed:
        rate = f"{self._options.set_by}.learning_rate={self._options.learning_rate / 10:g}"
        return StageFailed(f"the training loss is {loss} at step {self._step}", f"take smaller steps: --set {rate}")

    def _tell(self, *, now: bool = False) -> None:
        """Where it stands; the numbers in it change no faster than one can read."""
        if now or time.monotonic() - self._told >= _TOLD_S:
            last = self._history.rows[-1]
            loss = f"loss {np.mean(self._losses[-self._every :]):.4g}, " if self._losses else ""
            right = "" if last["held_out_right"] is None else f" ({last['held_out_right']:.1%} right)"
            self._text = f"training: {loss}held-out {last['held_out_loss']:.4g}{right}"
            self._told = time.monotonic()
        self._say(self._text, self._step, self._total)

    def _state(self) -> dict[str, Any]:
        return {
            "tensors": {name: tensor.detach() for name, tensor in self._tensors.items()},
            "best": self._best,
            "optimizer": self._optimizer.state_dict(),
            "step": self._step,
            "total": self._total,
            "planned": self._planned,
            "best_loss": self._best_loss,
            "best_step": self._history.best_step,
            "waited": self._waited,
            "losses": self._losses,
            "rows": self._history.rows,
            "spent": self._spent(),
            "evaluation_s": self._evaluation_s,
        }

    def _resumed(self) -> bool:
        """Whether there was a checkpoint to go on from."""
        kept = self._checkpoint.read(self._learnt[0].device)
        if kept is None:
            return False
        if not _fit(self._module, kept["tensors"]):
            raise StageFailed("what was kept of this training before is of another module", "begin anew: --fresh")
        _put(self._tensors, kept["tensors"])
        self._optimizer.load_state_dict(kept["optimizer"])
        self._best, self._best_loss, self._waited = kept["best"], kept["best_loss"], kept["waited"]
        self._step, self._total, self._planned = kept["step"], kept["total"], kept["planned"]
        self._history.best_step, self._history.rows = kept["best_step"], kept["rows"]
        self._losses, self._spent_before = kept["losses"], kept["spent"]
        # Before there was an evaluation here, one takes as long as it did there.
        self._evaluation_s = kept["evaluation_s"]
        self._tell(now=True)
        return True


def _groups(learnt: list[torch.nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Matrices and kernels decay; vectors (biases, the scales of norms) do not."""
    flat = [each for each in learnt if each.ndim < 2]  # noqa: PLR2004
    return [
        {"params": [each for each in learnt if each.ndim >= 2], "weight_decay": weight_decay},  # noqa: PLR2004
        {"params": flat, "weight_decay": 0.0},
    ]


def _draw_from(seed: int, step: int) -> None:
    """Every generator that a module may draw from, as it is for this step alone."""
    drawn = int(np.random.SeedSequence([seed, 2, step]).generate_state(1)[0])
    torch.manual_seed(drawn)
    random.seed(drawn)
    np.random.seed(drawn)  # noqa: NPY002 - the generator that code without one of its own uses


def _to_training(module: torch.nn.Module, batch_norm: Literal["train", "frozen"]) -> None:
    """Training mode. Batch norms whose weights are frozen keep their statistics too."""
    module.train()
    for each in module.modules():
        if isinstance(each, torch.nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 - the base of all of them
            own = list(each.parameters(recurse=False))
            if batch_norm == "frozen" or (own and not any(one.requires_grad for one in own)):
                each.eval()


def _fit(module: torch.nn.Module, values: dict[str, torch.Tensor]) -> bool:
    """Whether these are values of this module: its parameters have their sizes. Buffers may have grown."""
    parameters = dict(module.named_parameters())
    names = parameters.keys() | dict(module.named_buffers()).keys()
    return names == values.keys() and all(values[name].shape == each.shape for name, each in parameters.items())


def _put(tensors: dict[str, torch.Tensor], values: dict[str, torch.Tensor]) -> None:
    """These values into the module's own tensors; buffers that grow as they see data take the new size."""
    with torch.no_grad():
        for name, tensor in tensors.items():
            if tensor.shape == values[name].shape:
                tensor.copy_(values[name])
            else:
                tensor.data = values[name].clone()
