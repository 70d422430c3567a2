"""Contenders take turns: rounds of fresh processes, loaded side by side and run one at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

from mlpack.core.target import Target
from mlpack.errors import Crashed, StageFailed

if TYPE_CHECKING:
    import random
    from pathlib import Path

    import numpy as np

    from mlpack.core.model import Model
    from mlpack.core.stage import Job, Launched, Say
    from mlpack.measure.telemetry import Sensors

# Processes that are loaded side by side, and how many times its files a loaded model takes.
_ABREAST = 10
_LOADED = 3
# A block is taken again where the machine was disturbed; so often at most, the least disturbed is kept.
_TRIES = 4


@dataclass
class Turns:
    """The timings so far: `ms` by contender, batch size and launch, and what was seen of the machine meanwhile.

    The first launches of those in `split` also give the parts of one request, in `parts`, once they are timed, and
    the ms of one sample of each length in the file `lengths`.
    `unsteady` counts blocks that never settled, `repeated` those taken again, `disturbed` those kept all the same,
    `rough` has the contenders that such blocks are of; `steal` and `others` are the largest shares of CPU time that a
    kept block lost; `peak_rss_bytes` has each contender's launches. `crashed` counts the launches that a native library
    ended, by contender; `refused` says why a contender that is not `needed` is timed no more. Where there are sensors,
    `energy_mj` has what each launch took per sample; `clocks_moved` counts blocks in which the clock changed, and
    `slowed` says what held a card back.
    """

    contenders: dict[str, Model]
    batches: list[int]
    seconds: float
    rows: Path
    job: Job
    order: random.Random
    needed: tuple[str, ...]
    split: tuple[str, ...] = ()
    lengths: Path | None = None
    ms: dict[str, dict[int, list[np.ndarray]]] = field(default_factory=dict)
    peak_rss_bytes: dict[str, list[int]] = field(default_factory=dict)
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    energy_mj: dict[str, dict[int, list[float]]] = field(default_factory=dict)
    telemetry: dict[str, dict[str, Any]] = field(default_factory=dict)
    clocks_moved: int = 0
    slowed: set[str] = field(default_factory=set)
    unsteady: int = 0
    repeated: int = 0
    disturbed: int = 0
    rough: set[str] = field(default_factory=set)
    crashed: dict[str, int] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    steal: float = 0.0
    others: float = 0.0

    @property
    def launches(self) -> int:
        """Rounds that have been played."""
        return len(next(iter(self.ms.values()))[self.batches[0]]) if self.ms else 0

    @property
    def steady(self) -> bool:
        """Whether every block settled, on a machine that did nothing else."""
        return not self.rough

    def play(self, rounds: int) -> None:
        """Play so many more rounds: in each, every contender is launched once, in random order.

        Raises:
            StageFailed: one that is needed cannot be timed, or none can.
        """
        total = self.launches + rounds
        for planned in self._waves(rounds):
            wave = [label for label in planned if label not in self.refused]
            for label, given in zip(wave, self._in_turns(wave), strict=True):
                if given is not None and label not in self.refused:
                    self._take(label, given)
            self._leave_out()
            self.job.say("timing, in turns", self.launches, total)

    def _take(self, label: str, given: dict[str, Any]) -> None:
        import numpy as np

        self.peak_rss_bytes.setdefault(label, []).append(given["peak_rss_bytes"])
        if given["parts"] is not None:
            self.parts[label] = given["parts"]
        by_batch = self.ms.setdefault(label, {batch: [] for batch in self.batches})
        for batch in self.batches:
            told = given[str(batch)]
            by_batch[batch].append(np.array(told["ms"]))
            self.unsteady += not told["steady"]
            self.repeated += told["tries"] - 1
            self.disturbed += told["disturbed"]
            if told["disturbed"] or not told["steady"]:
                self.rough.add(label)
            self.steal = max(self.steal, told["steal"])
            self.others = max(self.others, told["others"])
            self._sense(label, batch, told["telemetry"], len(told["ms"]))

    def _sense(self, label: str, batch: int, told: dict[str, Any], calls: int) -> None:
        self.telemetry[label] = told
        self.clocks_moved += told["clocks_moved"]
        self.slowed |= set(told["slowed"])
        if told["joules"] is not None:
            by_batch = self.energy_mj.setdefault(label, {})
            by_batch.setdefault(batch, []).append(told["joules"] * 1000 / calls / batch)

    def _waves(self, count: int) -> list[list[str]]:
        """The turns: a wave is as many rounds as fit the memory and `_ABREAST` processes, one at least."""
        import psutil

        rounds = [self.order.sample(list(self.contenders), len(self.contenders)) for _ in range(count)]
        round_bytes = _LOADED * sum(model.size_bytes for model in self.contenders.values())
        roomy = int(psutil.virtual_memory().available / 2 / max(round_bytes, 1))
        together = max(1, min(roomy, _ABREAST // len(self.contenders)))
        return [list(chain.from_iterable(rounds[start : start + together])) for start in range(0, count, together)]

    def _leave_out(self) -> None:
        for label, why in self.refused.items():
            for told in (
                self.contenders, self.ms, self.peak_rss_bytes, self.parts, self.energy_mj, self.telemetry, self.crashed,
            ):  # fmt: skip
                told.pop(label, None)
            self.rough.discard(label)
            if not self.contenders:
                raise StageFailed(why, "`mlpack logs` has what the last one said; try another --backend")

    def _in_turns(self, wave: list[str]) -> list[dict[str, Any] | None]:
        """Load the wave's processes side by side; then let one at a time run, when all others stand still.

        None for the launches of what is left out.
        """
        from mlpack.measure.machine import wait_until_idle

        first = {label: wave.index(label) for label in set(wave) & set(self.split) - set(self.parts)}
        launched = [self._launch(label, split=first.get(label) == index) for index, label in enumerate(wave)]
        try:
            for each in launched:
                each.ready()
            results: list[dict[str, Any] | None] = []
            for index, (label, each) in enumerate(zip(wave, launched, strict=True)):
                if label in self.refused:
                    results.append(None)
                    continue
                wait_until_idle([waiting.pid for waiting in launched[index:]])
                results.append(self._finished(label, each, split=first.get(label) == index))
            return results
        finally:
            for each in launched:
                each.end()

    def _finished(self, label: str, launched: Launched, *, split: bool) -> dict[str, Any] | None:
        """What a launch gave. What a native library has ended is launched once more; that it was is counted."""
        try:
            try:
                given = launched.finish()
            except Crashed:
                self.crashed[label] = self.crashed.get(label, 0) + 1
                given = self._launch(label, split=split).finish()
        except StageFailed as error:
            model = self.contenders[label]
            why = f"{model.numerics} in {model.backend} cannot be timed: {error.message}"
            if label in self.needed:
                raise StageFailed(why, error.hint) from error
            self.refused[label] = why
            return None
        return dict(given)

    def _launch(self, label: str, *, split: bool) -> Launched:
        model = self.contenders[label]
        arguments = {
            "model": {"path": str(model.path), **model.model_dump(mode="json")},
            "target": self.job.target.model_dump(mode="json"),
            "threads": self.job.threads,
            "rows": str(self.rows),
            "batches": self.batches,
            "seconds": self.seconds,
            "split": split,
            "lengths": str(self.lengths) if split and self.lengths else None,
        }
        return self.job.launch("mlpack.stages.turns:block", arguments)


def block(
    say: Say,
    model: dict[str, Any],
    target: dict[str, Any],
    threads: int,
    rows: str,
    batches: list[int],
    seconds: float,
    *,
    split: bool,
    lengths: str | None,
) -> dict[str, Any]:
    """One launch of one contender: by batch size the milliseconds per call, and how quiet the machine was.

    With `split` then the parts of one request at the first batch size; with `lengths` what one sample of each takes.

    Runs in a process of its own, which loads the model, says that it is ready and waits for its turn.
    """
    import gc
    import sys

    import numpy as np

    from mlpack.backends import BACKENDS
    from mlpack.core.model import Model
    from mlpack.measure.machine import peak_rss_bytes
    from mlpack.measure.telemetry import Sensors
    from mlpack.stages.components import split_request
    from mlpack.stages.lengths import time_lengths

    opened = Model.model_validate(model)
    assert opened.backend is not None
    options = opened.backend_options.with_threads(threads)
    inputs = dict(np.load(rows))
    sensors = Sensors(options.device)
    backend, where = BACKENDS[opened.backend], Target.model_validate(target)
    with backend.open(opened, where, options) as runner:
        # No call is charged with a look at all that is loaded.
        gc.collect()
        gc.freeze()
        say("ready")
        sys.stdin.readline()
        found: dict[str, Any] = {}
        for batch in batches:
            feeds = {name: np.ascontiguousarray(array[:batch]) for name, array in inputs.items()}
            found[str(batch)] = _quietest(lambda feeds=feeds: runner(feeds), seconds, sensors)
        peak = peak_rss_bytes()
        by_length = time_lengths(runner, lengths, seconds / 2) if lengths else {}
    first = {name: np.ascontiguousarray(array[: batches[0]]) for name, array in inputs.items()}
    parts = split_request(backend, opened, where, options, first, seconds) if split else None
    if parts is not None:
        parts["lengths"] = {str(length): ms for length, ms in by_length.items()}
    return {**found, "peak_rss_bytes": peak, "parts": parts}


def _quietest(call: Any, seconds: float, sensors: Sensors) -> dict[str, Any]:
    """The calls of the first try that nothing disturbed, or of the least disturbed one.

    What decides is the CPU time that others took, never the timing itself: taking the fastest would be cheating.
    """
    from mlpack.measure.clock import time_calls, warm_up
    from mlpack.measure.disturbance import Disturbance, Watch
    from mlpack.measure.telemetry import between

    kept: tuple[Disturbance, Any, dict[str, Any]] | None = None
    steady = warm_up(call)
    tries = 0
    while tries < _TRIES:
        tries += 1
        watch, before = Watch(), sensors.read()
        ms = time_calls(call, seconds, warmup_seconds=0)
        seen, used = watch.read() or Disturbance(0.0, 0.0), between(before, sensors.read())
        if kept is None or seen.share < kept[0].share:
            kept = seen, ms, used.document()
        if not seen.noticed:
            break
    assert kept is not None
    seen, ms, telemetry = kept
    told = {"steal": seen.steal, "others": seen.others, "disturbed": seen.noticed, "telemetry": telemetry}
    return {"ms": ms.tolist(), "steady": steady, "tries": tries, **told}
