"""Times the layers of groups at some of their widths, as ONNX Runtime runs them here: what narrowing would save."""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from mlpack.core.backend_options import BackendOptions
from mlpack.core.model import Model, TensorSpec
from mlpack.measure.clock import time_calls
from mlpack.measure.machine import timing_lock

if TYPE_CHECKING:
    from mlpack.core.stage import Job
    from mlpack.pruning.choosing import Block
    from mlpack.pruning.groups import Group
    from mlpack.pruning.running import Call

# Widths of a group that are timed; what lies between them is taken to lie on a line.
_TIMED = 4
_SECONDS, _WARM_UP = 0.03, 0.02
_CALLS = 20
_LEAST_MS = 1e-4
_OPSET = 18
_WEIGHTED = (nn.modules.conv._ConvNd, nn.Linear)  # noqa: SLF001 - the one class that torch has for all of them


def saved_ms(
    module: nn.Module, blocks: Mapping[Group, Sequence[Block]], call: Call, job: Job
) -> dict[tuple[Group, float], float]:
    """What each block saves of one call once those before it are gone, by its group and the share gone with it.

    Layers are timed one at a time with all others at their full width: how they add up is not looked at.
    """
    shapes = _inputs_of(module, call)
    stopwatch = _Stopwatch(job)
    saved: dict[tuple[Group, float], float] = {}
    with timing_lock():
        for done, (group, each) in enumerate(blocks.items()):
            if not each:
                continue
            job.say(f"timing {group.name}", done, len(blocks))
            shares = [block.share for block in each]
            timed = sorted({round(at) for at in np.linspace(0, len(each) - 1, min(_TIMED, len(each)))})
            known = [(0.0, _group_ms(module, group, [], shapes, stopwatch))]
            for at in timed:
                gone = [unit for block in each[: at + 1] for unit in block.units]
                known.append((shares[at], _group_ms(module, group, gone, shapes, stopwatch)))
            ms = np.interp([0.0, *shares], [share for share, _ in known], [took for _, took in known])
            for block, before, after in zip(each, ms[:-1], ms[1:], strict=True):
                # Noise can make a narrower layer slower: such a block is not worth more than one that saves nothing.
                saved[group, block.share] = max(float(before - after), _LEAST_MS)
    return saved


def _inputs_of(module: nn.Module, call: Call) -> dict[str, tuple[int, ...]]:
    """The shape that goes into each layer with weights in one call."""
    found: dict[str, tuple[int, ...]] = {}
    hooks = []
    for path, layer in module.named_modules():
        if isinstance(layer, _WEIGHTED):

            def hook(_: nn.Module, args: tuple[torch.Tensor, ...], path: str = path) -> None:
                found[path] = tuple(args[0].shape)

            hooks.append(layer.register_forward_pre_hook(hook))
    try:
        with torch.no_grad():
            call(module)
    finally:
        for each in hooks:
            each.remove()
    return found


def _group_ms(
    module: nn.Module, group: Group, units: Sequence[int], shapes: Mapping[str, tuple[int, ...]], stopwatch: _Stopwatch
) -> float:
    """All layers of the group without these units, one after the other."""
    layers: dict[str, nn.Module] = {}
    read: dict[str, int] = defaultdict(int)
    for part in group.parts:
        if part.path not in shapes:
            continue
        channels = [channel for unit in units for channel in part.channels[unit]]
        layer = layers.setdefault(part.path, copy.deepcopy(module.get_submodule(part.path)))
        if channels:
            part.narrow(layer, sorted(channels))
        if part.side in {"in", "both"}:
            read[part.path] += len(channels)
    return sum(stopwatch.ms(layer, _fewer(layer, shapes[path], read[path])) for path, layer in layers.items())


def _fewer(layer: nn.Module, shape: tuple[int, ...], gone: int) -> tuple[int, ...]:
    """The shape with so many channels fewer: the last dim of a linear layer, the second of a convolution."""
    at = len(shape) - 1 if isinstance(layer, nn.Linear) else 1
    return (*shape[:at], shape[at] - gone, *shape[at + 1 :])


class _Stopwatch:
    """Times single layers; those that are alike once."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._known: dict[str, float] = {}

    def ms(self, layer: nn.Module, shape: tuple[int, ...]) -> float:
        """The median of some calls."""
        kind = f"{layer} {shape}"
        if kind not in self._known:
            self._known[kind] = self._time(layer.eval(), shape)
        return self._known[kind]

    def _time(self, layer: nn.Module, shape: tuple[int, ...]) -> float:
        backend = self._job.backend("onnxruntime")
        with tempfile.TemporaryDirectory(dir=self._job.out.parent) as folder:
            model = _exported(layer, shape, Path(folder))
            given = {"x": np.zeros(shape, np.float32)}
            with backend.open(model, self._job.target, BackendOptions(threads=self._job.threads)) as runner:
                runner.copy_in(given)
                return float(np.median(time_calls(runner.compute, _SECONDS, _CALLS, _WARM_UP)))


def _exported(layer: Any, shape: tuple[int, ...], folder: Path) -> Model:
    """One layer as an ONNX file; torch's older exporter writes it in a hundredth of the newer one's time."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            layer,
            (torch.zeros(shape),),
            str(folder / "layer.onnx"),
            dynamo=False,
            opset_version=_OPSET,
            input_names=["x"],
            output_names=["y"],
        )
    return Model(
        path=folder,
        entry="layer.onnx",
        format="onnx",
        inputs=(TensorSpec(name="x", dtype="float32", dims=shape),),
        outputs=(TensorSpec(name="y", dtype="float32", dims=()),),
    )
