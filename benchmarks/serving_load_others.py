"""The servers of others beside ours: the same file, the same session, the same client, in turns."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import serving_load_client as lean
import serving_load_forms as forms
import serving_load_ours as ours
import serving_load_peers as peers

from mlpack.errors import MlpackError
from mlpack.measure.arrivals import poisson_times
from mlpack.measure.clients.client import Failed
from mlpack.measure.load_drive import run
from mlpack.measure.percentiles import percentile

if TYPE_CHECKING:
    from mlpack.measure.load import Load

# The answer of one file in one library: other batches add up in another order.
_TOLERANCE = 0.02
# Short turns in a drawn order: over minutes this machine's speed changes by a third.
_TURNS = 4
# All of the others are asked in JSON too.
_OURS = "mlpack fastapi, JSON"


def measure(trial: ours.Trial, homes: Path) -> dict[str, Any]:
    """Throughput and latency of each at 32 clients, then at a rate that all can carry."""
    most = trial.most_rows()
    package, torchserve = trial.package("fastapi", most), trial.package("torchserve", most)
    rows: dict[str, dict[str, Any]] = {}
    doors: dict[str, tuple[int, list[bytes]]] = {}
    with ExitStack() as stack:
        for each in peers.contenders(package, torchserve, homes, most):
            rows[each.name] = {"server": each.name, "settings": each.settings, "form": each.form}
            try:
                doors[each.name] = _opened(each, trial, stack)
            except (MlpackError, Failed, OSError) as error:
                rows[each.name]["why"] = str(getattr(error, "message", error)).replace(str(trial.place), "")
            print(rows[each.name], flush=True)
        full: dict[str, list[Load]] = {name: [] for name in doors}
        order, draw = list(doors), np.random.default_rng(0)
        for _ in range(_TURNS * trial.rounds):
            for name in draw.permutation(order):
                full[name].append(ours.closed(*doors[name], ours.CLIENTS, trial.seconds / _TURNS))
        slowest = min(float(np.median([load.throughput for load in loads])) for loads in full.values())
        rate = ours.BUSY * slowest
        shared: dict[str, list[Load]] = {name: [] for name in doors}
        for turn in range(trial.rounds):
            times = poisson_times(rate, ours.WARM_UP_S + trial.seconds, turn)
            for name, (port, asked) in doors.items():
                shared[name].append(ours.opened(port, asked, times, rate, trial.seconds))
    for name in doors:
        rows[name] |= {"full": _told(full[name]), "shared": _told(shared[name])}
        if name != _OURS:
            rows[name]["ahead"] = _ahead(full[_OURS], full[name])
    return {"clients": ours.CLIENTS, "rate": rate, "most_rows": most, "rows": list(rows.values())}


def _opened(each: peers.Contender, trial: ours.Trial, stack: ExitStack) -> tuple[int, list[bytes]]:
    """Port and requests of a server that is started, and has answered the first one as it should."""
    running = stack.enter_context(each.start(trial.place / f"{each.name.replace(' ', '-')}.log"))
    port = int(running.urls["http"].rpartition(":")[2])
    asked = forms.requests(each.form, each.path, trial.model, trial.rows())

    async def first() -> bytes:
        return await lean.Lean(port).send(asked[0])

    answered = forms.values(each.form, run(first))
    if not np.allclose(answered, trial.expected(), rtol=_TOLERANCE, atol=_TOLERANCE):
        raise Failed(f"it answers {answered.tolist()}, not {trial.expected().tolist()}")
    return port, asked


def _ahead(ours_in_turn: list[Load], theirs_in_turn: list[Load]) -> dict[str, float | None]:
    """Our throughput over theirs, turn by turn: the machine is another one a minute later. Median and its 95%."""
    pairs = zip(ours_in_turn, theirs_in_turn, strict=True)
    found = percentile(np.array([mine.throughput / its.throughput for mine, its in pairs]), 0.5)
    return {"ratio": found.value, "low": found.low, "high": found.high, "turns": found.n}


def _told(loads: list[Load]) -> dict[str, Any]:
    """The medians over the rounds."""

    def middle(found: list[float | None]) -> float | None:
        known = [value for value in found if value is not None]
        return float(np.median(known)) if known else None

    return {
        "throughput": middle([load.throughput for load in loads]),
        **{f"{name}_ms": middle([load.quantile(name).ms for load in loads]) for name in ("p50", "p99")},
        "failed": sum(load.requests - load.good for load in loads),
        "errors": dict(sorted({name: times for load in loads for name, times in load.errors.items()}.items())),
    }
