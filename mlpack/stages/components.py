"""One request, split: copy in, operators, copy out; and what each module of the user's model takes of it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from mlpack.core.backend import Backend, Runner, Spent
    from mlpack.core.backend_options import BackendOptions
    from mlpack.core.model import Model
    from mlpack.core.target import Target

_TOP_OPERATORS = 6
_MOST_MODULES = 12
_DEVICE_RUNS = 10
_QUANTIZING = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "FakeQuantize"}
QUANTIZING = "quantize/dequantize"
ELSEWHERE = "(no module)"
_SHOWN_SHARE = 0.001


def split_request(
    backend: Backend,
    model: Model,
    target: Target,
    options: BackendOptions,
    feeds: Mapping[str, np.ndarray],
    seconds: float,
) -> dict[str, Any]:
    """Median ms of one request: `parts` with shares that sum to 1, `modules` by path, `device_ms` by its own clock."""
    import numpy as np

    from mlpack.measure.clock import time_calls

    with backend.open(model, target, options) as runner:
        runner(feeds)
        copy_in = float(np.median(time_calls(partial(runner.copy_in, feeds), seconds / 4)))
        compute = float(np.median(time_calls(runner.compute, seconds)))
        copy_out = float(np.median(time_calls(runner.copy_out, seconds / 4)))
        device_ms = _by_the_device(runner)
    spent = backend.operators(model, target, options, feeds)
    # The library's profiler slows each operator a little: its shares are kept, its sum is not.
    whole = sum(each.ms for each in spent)
    scale = compute / whole if whole else 0.0
    parts = [("copy in", copy_in), *(_by_operator(spent, scale) or [("compute", compute)]), ("copy out", copy_out)]
    modules: dict[str, float] = {}
    for each in spent:
        modules[each.module] = modules.get(each.module, 0.0) + each.ms * scale
    request = sum(ms for _, ms in parts)
    shares = [{"name": name, "p50": ms, "share": ms / request} for name, ms in parts]
    return {"parts": shares, "modules": modules, "device_ms": device_ms}


def _by_the_device(runner: Runner) -> float | None:
    """Median ms of compute by the device's own clock; None where there is none, which one run tells."""
    import numpy as np

    told: list[float] = []
    while len(told) < _DEVICE_RUNS:
        runner.compute()
        ms = runner.device_ms()
        if ms is None:
            return None
        told.append(ms)
    return float(np.median(told))


def _by_operator(spent: Sequence[Spent], scale: float) -> list[tuple[str, float]]:
    """The operators that take most, then quantizing, which has a row of its own, then the rest together."""
    totals: dict[str, float] = {}
    for each in spent:
        name = QUANTIZING if each.operator in _QUANTIZING else each.operator
        totals[name] = totals.get(name, 0.0) + each.ms * scale
    quantizing = totals.pop(QUANTIZING, None)
    ranked = sorted(totals.items(), key=lambda item: -item[1])
    rows = ranked[:_TOP_OPERATORS]
    if quantizing is not None:
        rows.append((QUANTIZING, quantizing))
    rest = ranked[_TOP_OPERATORS:]
    if rest:
        rows.append((f"{len(rest)} other operators", sum(ms for _, ms in rest)))
    return rows


def by_module(modules: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """Rows of the user's modules, in order of their paths: ms of each contender, 0 where it spends none there.

    `modules` is ms by contender and path. Paths are cut to the depth at which at most 12 modules are left; what
    takes less than a thousandth of every contender is left out. A contender that knows none of its modules (an
    exported program has lost them) has None; there are no rows where none does.
    """
    unknown = dict.fromkeys((contender for contender, spent in modules.items() if not any(spent)), None)
    modules = {contender: spent for contender, spent in modules.items() if contender not in unknown}
    paths = {path for spent in modules.values() for path in spent if path}
    if not paths:
        return []
    deepest = max(path.count(".") for path in paths) + 1
    depth = next((cut for cut in range(deepest, 0, -1) if len({_cut(path, cut) for path in paths}) <= _MOST_MODULES), 1)
    rows: dict[str, dict[str, float]] = {}
    for contender, spent in modules.items():
        for path, ms in spent.items():
            row = rows.setdefault(_cut(path, depth) if path else ELSEWHERE, dict.fromkeys(modules, 0.0))
            row[contender] += ms
    whole = {contender: sum(spent.values()) or 1.0 for contender, spent in modules.items()}
    return [
        {"module": name, **row, **unknown}
        for name, row in sorted(rows.items(), key=lambda item: _in_order(item[0]))
        if any(ms >= _SHOWN_SHARE * whole[contender] for contender, ms in row.items())
    ]


def _cut(path: str, depth: int) -> str:
    return ".".join(path.split(".")[:depth])


def _in_order(path: str) -> tuple[bool, list[tuple[int, str]]]:
    """Layer 10 comes after layer 9; what belongs to no module comes last."""
    return path == ELSEWHERE, [(int(part), "") if part.isdigit() else (-1, part) for part in path.split(".")]
