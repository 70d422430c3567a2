"""Prunes a module as the options of the stage say, and reports what is gone."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mlpack.core.report import Report
from mlpack.errors import StageFailed, UsageError
from mlpack.pruning.choosing import Block, Estimate, blocks_of, enough, first, ordered
from mlpack.pruning.depth import Taken, take_layers
from mlpack.pruning.fisher import fisher_scores
from mlpack.pruning.flops import Work, work_of
from mlpack.pruning.masks import mask, weighted
from mlpack.stages.prune_rows import Rows

if TYPE_CHECKING:
    from mlpack.core.model import Model
    from mlpack.core.stage import Job
    from mlpack.pruning.groups import Group, Left, Plan
    from mlpack.stages.prune import Prune

_FEW = 4
_SOME = 32
# A whole percent is the least that can be asked for.
_LEAST = 0.01
_MOST = 0.95
# So near to what was asked for is there.
_NEAR = 0.005
_BATCH_NORM = nn.modules.batchnorm._BatchNorm  # noqa: SLF001 - the one class that torch has for all of them


def narrowed(module: nn.Module, model: Model, stage: Prune, job: Job) -> tuple[nn.Module, Report]:
    """The module with narrower and fewer layers.

    Raises:
        StageFailed: it cannot be followed, or so much cannot go.
    """
    from mlpack.pruning.groups import find_groups, narrow_by, tried

    rows = Rows(module, model, stage, job)
    before = work_of(module, rows.first(1))
    if not before.all_flops:
        raise StageFailed("this module has no convolution and no product to prune", "leave the step prune out")
    taken = _take(module, rows, stage, job)
    job.say("finding what hangs together")
    groups, left = find_groups(module, rows.first(_FEW))
    groups = [group for group in groups if group.kind in stage.kinds and not _excluded(group, stage.exclude)]
    now = work_of(module, rows.first(1))
    estimate = Estimate(module, now, groups)
    multiple = stage.multiple or job.target.multiple
    scores = _scores(module, groups, rows, stage, job)
    blocks = {group: blocks_of(group, scores[group], multiple, stage.most) for group in groups}
    order = ordered(blocks, stage.scope, _price(module, estimate, blocks, rows, stage, job))
    wanted = (1 - stage.amount) * before.all_flops
    count = enough(order, wanted, estimate)
    while True:
        made = copy.deepcopy(module)
        plan = first(order, count)
        narrow_by(made, plan)
        after = work_of(made, rows.first(1))
        gone = 1 - after.all_flops / before.all_flops
        if gone >= stage.amount - _NEAR:
            break
        if count == len(order):
            raise _cannot(stage, gone, left)
        count += 1
    if not tried(module, rows.first(_FEW), plan):
        raise StageFailed(
            "the narrowed module answers otherwise than the one whose units are zeros",
            "leave layers as they are: --set prune.exclude=[MODULE]",
        )
    renewed = _measure_norms(made, rows) if stage.norms == "measured" and rows.describe else 0
    metrics = {
        **_totals(before, after),
        "multiple": multiple,
        "norms_measured": renewed,
        "rows": rows.count,
        "rows_are": rows.kind,
        "by": rows.by,
    }
    tables = {
        "modules": _rows_of(module, made, plan, now, after),
        "layers_taken": [{"module": each.path, "moved": round(each.moved, 6)} for each in taken],
        "left": [{"module": each.name, "why": each.why} for each in left],
    }
    return made, Report(metrics=metrics, tables=tables)


def _take(module: nn.Module, rows: Rows, stage: Prune, job: Job) -> list[Taken]:
    if not stage.layers:
        return []
    job.say("looking for the layers that matter least")
    taken = take_layers(module, rows.first(_SOME), stage.layers)
    if len(taken) < stage.layers:
        raise StageFailed(
            f"{len(taken)} of {stage.layers} layers can be taken out: what is left would not run, or there are no more",
            f"--set prune.layers={len(taken)}",
        )
    return taken


def _excluded(group: Group, paths: Sequence[str]) -> bool:
    return any(part.path == path or part.path.startswith(f"{path}.") for part in group.parts for path in paths)


def _scores(
    module: nn.Module, groups: Sequence[Group], rows: Rows, stage: Prune, job: Job
) -> Mapping[Group, Sequence[float]]:
    if stage.criterion == "magnitude":
        return {group: group.magnitude for group in groups}
    job.say(f"weighing units on {rows.count} rows")
    return fisher_scores(module, groups, rows.batches())


def _price(
    module: nn.Module,
    estimate: Estimate,
    blocks: Mapping[Group, Sequence[Block]],
    rows: Rows,
    stage: Prune,
    job: Job,
) -> Callable[[Block], float]:
    """What a block costs for what it saves: FLOPs, or milliseconds. Norms are comparable without."""
    if stage.criterion == "magnitude":
        return lambda block: block.score / len(block.units)
    if stage.criterion == "latency":
        from mlpack.stages.prune_latency import saved_ms

        job.say("timing layers at their widths")
        saved = saved_ms(module, blocks, rows.first(1), job)
        return lambda block: block.score / saved[block.group, block.share]
    whole = estimate.flops({})
    return lambda block: block.score / max(whole - estimate.flops({block.group: block.units}), 1.0)


def _measure_norms(module: nn.Module, rows: Rows) -> int:
    """Give batch norms the statistics of what is left, in place: how many. Channels that are gone had a mean."""
    norms = [each for each in module.modules() if isinstance(each, _BATCH_NORM) and each.track_running_stats]
    momentum = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        # The mean over all batches.
        norm.momentum = None
        norm.train()
    with torch.no_grad():
        for count, run, _ in rows.batches() if norms else ():
            # What is left of the last batch may be a single row, which has no variance.
            if count > 1:
                run(module)
    for norm, before in zip(norms, momentum, strict=True):
        norm.momentum = before
        norm.eval()
    return len(norms)


def _cannot(stage: Prune, gone: float, left: Sequence[Left]) -> StageFailed:
    reasons = "; ".join(f"{each.name}: {each.why}" for each in left[:_FEW])
    if gone < _LEAST:
        return StageFailed(
            f"nothing of this module can go with these options{f' ({reasons})' if reasons else ''}",
            "prune.exclude, prune.kinds and prune.most say what may go; else leave the step prune out",
        )
    more = f", or more of each layer: --set prune.most={_MOST}" if stage.most < _MOST else ""
    return StageFailed(
        f"{stage.amount:.0%} of the FLOPs cannot go: {gone:.1%} is the most that can, with {stage.most:.0%} of a layer "
        f"at most{f' ({reasons})' if reasons else ''}",
        f"--prune {int(100 * gone)}%{more}",
    )


def _totals(before: Work, after: Work) -> dict[str, Any]:
    return {
        "flops_gone": round(1 - after.all_flops / before.all_flops, 4),
        "flops_before": before.all_flops,
        "flops_after": after.all_flops,
        "parameters_before": before.all_parameters,
        "parameters_after": after.all_parameters,
    }


def _rows_of(module: nn.Module, made: nn.Module, plan: Plan, before: Work, after: Work) -> list[dict[str, Any]]:
    """Each layer that is narrower, with what it costs and holds; and what went of it."""
    kinds: dict[str, str] = {}
    for group in plan:
        for part in group.parts:
            kinds.setdefault(part.path, group.kind)
    return [
        {
            "module": path,
            "kind": kinds[path],
            "width_before": _width(module.get_submodule(path)),
            "width_after": _width(made.get_submodule(path)),
            "flops_before": before.flops.get(path, 0),
            "flops_after": after.flops.get(path, 0),
            "parameters_before": before.parameters.get(path, 0),
            "parameters_after": after.parameters.get(path, 0),
        }
        for path, layer in module.named_modules()
        if path in kinds and isinstance(layer, nn.Linear | nn.modules.conv._ConvNd)  # noqa: SLF001 - torch's one class
    ]


def _width(layer: Any) -> str:
    """In → out."""
    if isinstance(layer, nn.Linear):
        return f"{layer.in_features} → {layer.out_features}"
    return f"{layer.in_channels} → {layer.out_channels}"


def masked(module: nn.Module, model: Model, stage: Prune, job: Job) -> tuple[nn.Module, Report]:
    """The module with zeros in its weights.

    Raises:
        UsageError: nothing is left to put zeros into.
    """
    assert stage.pattern != "structured"
    weights = {
        path: weight
        for path, weight in weighted(module, stage.pattern).items()
        if not any(path == each or path.startswith(f"{each}.") for each in stage.exclude)
    }
    if not weights:
        raise UsageError("no convolution or linear layer is left to prune", "prune.exclude fewer modules")
    rows = Rows(module, model, stage, job)
    before = work_of(module, rows.first(1))
    if stage.criterion == "magnitude":
        scores = {path: weight.detach().abs() for path, weight in weights.items()}
    else:
        job.say(f"weighing weights on {rows.count} rows")
        scores = _weight_scores(module, weights, rows)
    found = mask(weights, scores, stage.pattern, stage.amount)
    zeros, total = sum(each.zeros for each in found), sum(each.weights for each in found)
    if not zeros:
        raise StageFailed("no layer of this module has a width that 2:4 fits", "--set prune.pattern=unstructured")
    metrics = {
        "zeros": round(zeros / total, 4),
        "flops_before": before.all_flops,
        "parameters_before": before.all_parameters,
        "parameters_not_zero": before.all_parameters - zeros,
        "rows": rows.count,
        "rows_are": rows.kind,
        "by": rows.by,
    }
    table = [{"module": each.path, "weights": each.weights, "zeros": each.zeros} for each in found]
    return module, Report(metrics=metrics, tables={"modules": table})


def _weight_scores(module: nn.Module, weights: Mapping[str, nn.Parameter], rows: Rows) -> dict[str, torch.Tensor]:
    """Squares of weights times their Fisher information, of a batch at a time."""
    for weight in weights.values():
        weight.requires_grad_(requires_grad=True)
    squares = {path: torch.zeros_like(weight) for path, weight in weights.items()}
    for _, run, likelihood in rows.batches():
        with torch.enable_grad():
            torch.autograd.backward(likelihood(run(module)))
        for path, weight in weights.items():
            if weight.grad is not None:
                squares[path] += weight.grad.square()
        module.zero_grad(set_to_none=True)
    return {path: squares[path] * weight.detach().square() for path, weight in weights.items()}
