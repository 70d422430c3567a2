"""The FastAPI package beside a bare loop over its own session, an ideal queue before that, and three times its load."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import psutil
import serving_load_client as lean
import serving_load_forms as forms
import serving_load_ideal as ideal

import mlpack
from mlpack.core.runtime import ServeOptions
from mlpack.measure.arrivals import poisson_times
from mlpack.measure.load import summarize
from mlpack.measure.load_drive import Asking, closed_loop, open_loop, run
from mlpack.measure.percentiles import percentile
from mlpack.runtimes import RUNTIMES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mlpack.measure.load import Load
    from mlpack.measure.load_drive import Drive

CLIENTS = 32
BATCHES = (1, 2, 4, 8, 16, 24, 32)
MOST_ROWS = (8, 16, 24, 32)
# OpenVINO pins the thread that runs a session of one thread to the first core, whatever it is told from outside.
SESSION_CORE, LOOP_CORE = sorted(os.sched_getaffinity(0))[:2]
WARM_UP_S = 1.0
BUSY, OVERLOAD = 0.7, 3.0
# Calls of each batch size that a first guess of the queue draws from; of those that follow each other in it, how many.
_TURNS = 5
_CALLS = 400


class Trial:
    """One artifact, and what is measured of it."""

    def __init__(self, store: Path, model: str, place: Path, rounds: int, seconds: float) -> None:
        self.store, self.model, self.place = store, model, place
        self.rounds, self.seconds = rounds, seconds
        self._curve: dict[int, float] = {}
        self._carried: dict[int, float] = {}

    def package(self, runtime: str, most_rows: int) -> Path:
        """The artifact's package; made once."""
        out = self.place / f"{runtime}-{most_rows}"
        if not out.is_dir():
            mlpack.package(self.model, runtime=runtime, store=self.store, out=out, max_batch=most_rows)
        return out

    def curve(self) -> dict[int, float]:
        """Rows per second of the bare loop by batch size, alone on its core."""
        if not self._curve:
            with Bare(self.package("fastapi", max(BATCHES))) as bare:
                self._curve = {batch: bare.rate(batch, 1.0) for batch in BATCHES}
        return self._curve

    def best(self) -> int:
        """The batch size with the most rows per second."""
        curve = self.curve()
        return max(curve, key=curve.__getitem__)

    def carried(self) -> dict[int, float]:
        """Requests per second at so many clients by the largest batch that the package may form."""
        for most in MOST_ROWS if not self._carried else ():
            folder = self.package("fastapi", most)
            log = self.place / f"most-{most}.log"
            with RUNTIMES["fastapi"].serve(folder, ServeOptions(), log) as server, on(LOOP_CORE):
                port = int(server.urls["http"].rpartition(":")[2])
                asked = self.asked()
                closed(port, asked, CLIENTS, 1.0)
                pin(server.process.pid)
                self._carried[most] = closed(port, asked, CLIENTS, 2.0).throughput
        return self._carried

    def most_rows(self) -> int:
        """The one that carries most: fewer than all clients, as those whose answers are written cannot wait yet."""
        carried = self.carried()
        return max(carried, key=carried.__getitem__)

    def rows(self) -> list[dict[str, np.ndarray]]:
        """The golden samples, one in each request."""
        inputs = self._golden("inputs")
        count = len(next(iter(inputs.values())))
        return [{name: array[row : row + 1] for name, array in inputs.items()} for row in range(count)]

    def expected(self) -> np.ndarray:
        """The first output for the first of them."""
        first: np.ndarray = next(iter(self._golden("outputs").values()))[0]
        return first.ravel()

    def asked(self) -> list[bytes]:
        """Requests in binary."""
        return forms.requests("binary", f"/v2/models/{self.model}/infer", self.model, self.rows())

    def _golden(self, side: str) -> dict[str, np.ndarray]:
        with np.load(self.package("fastapi", max(BATCHES)) / "golden" / f"{side}.npz") as arrays:
            return dict(arrays)

    def measure(self) -> dict[str, Any]:
        """Throughput, P99 and overload of the FastAPI package."""
        most, carried = self.most_rows(), self.carried()
        folder = self.package("fastapi", most)
        log = self.place / "fastapi.log"
        with Bare(folder) as bare, RUNTIMES["fastapi"].serve(folder, ServeOptions(), log) as server, on(LOOP_CORE):
            port = int(server.urls["http"].rpartition(":")[2])
            asked = self.asked()
            closed(port, asked, CLIENTS, 1.0)
            pin(server.process.pid)
            found: dict[str, Any] = {
                "curve": {str(batch): rate for batch, rate in self.curve().items()}, "best": self.best(),
                "carried": {str(rows): rate for rows, rate in carried.items()}, "most_rows": most,
            }  # fmt: skip
            found |= {"throughput": [], "busy": [], "overload": []}
            service: dict[int, list[np.ndarray]] = {}
            for turn in range(self.rounds):
                found["throughput"].append(self._beside_bare(bare, port, asked, server.process.pid))
                peak = found["throughput"][-1]["ours"]
                found["busy"].append(self._beside_ideal(bare, port, asked, BUSY * peak, service, turn))
                found["overload"].append(self._overload(port, asked, peak, server.process.pid, turn))
            found["service_ms"] = {
                str(size): float(np.median(np.concatenate(times)) * 1e3) for size, times in service.items()
            }
        return found

    def _beside_bare(self, bare: Bare, port: int, asked: Sequence[bytes], pid: int) -> dict[str, Any]:
        """Both in turn: the machine is another one a minute later."""
        alone = bare.rate(self.best(), self.seconds / 2)
        before = spent(pid)
        load = closed(port, asked, CLIENTS, self.seconds)
        assert load.good == load.requests, load.errors
        return {
            "bare": alone, "ours": load.throughput, "ratio": load.throughput / alone,
            "p50_ms": load.quantile("p50").ms, "p99_ms": load.quantile("p99").ms,
            "busy": busy(pid, before, load),
        }  # fmt: skip

    def _beside_ideal(
        self, bare: Bare, port: int, asked: Sequence[bytes], rate: float, known: dict[int, list[np.ndarray]], turn: int
    ) -> dict[str, Any]:
        """P99 of both for requests that come at the same times; the ideal's calls are of just before and after.

        A call takes longer after one of a very different size: sizes follow each other as that queue asks for them.
        """
        seconds = 2 * self.seconds
        times = np.concatenate([
            poisson_times(rate, WARM_UP_S, 1000 + turn), WARM_UP_S + poisson_times(rate, seconds, turn),
        ])  # fmt: skip
        drawn = bare.mixed(self.most_rows(), _TURNS)
        sizes = ideal.queue(times, drawn, turn)[1][:_CALLS]
        before = bare.times(sizes)
        load = opened(port, asked, times, rate, seconds)
        after = bare.times(sizes)
        service = {size: calls_of(size, [*sizes, *sizes], [*before, *after]) for size in set(sizes)}
        for size, calls in service.items():
            known.setdefault(size, []).append(calls)
        late = ideal.queue(times, drawn | service, turn)[0][times >= WARM_UP_S] * 1e3
        p99 = load.quantile("p99").ms
        best = percentile(late, 0.99).value
        return {
            "rate": rate, "p50_ms": load.quantile("p50").ms, "p99_ms": p99, "ideal_p50_ms": float(np.median(late)),
            "ideal_p99_ms": best, "ratio": None if p99 is None else p99 / best, "answered": load.good,
            "requests": load.requests, "lag_p99_ms": load.lag_p99_ms, "notes": list(load.notes),
            "slower": float(np.median(np.divide(after, before))),
        }  # fmt: skip

    def _overload(self, port: int, asked: Sequence[bytes], peak: float, pid: int, turn: int) -> dict[str, Any]:
        """What is answered, what is refused, and what memory does."""
        rate = OVERLOAD * peak
        times = poisson_times(rate, WARM_UP_S + self.seconds, 2000 + turn)
        process = psutil.Process(pid)
        held, before = process.memory_info().rss, spent(pid)
        load = opened(port, asked, times, rate, self.seconds, is_flood=True)
        return {
            "rate": rate, "sent": load.rate_sent, "goodput": load.throughput, "ratio": load.throughput / peak,
            "errors": load.errors, "unsent": load.unsent, "p99_ms": load.quantile("p99").ms,
            "before_mb": held / 1e6, "after_mb": process.memory_info().rss / 1e6, "busy": busy(pid, before, load),
        }  # fmt: skip


class Bare:
    """The process of `serving_load_bare.py`."""

    def __init__(self, package: Path) -> None:
        script = Path(__file__).with_name("serving_load_bare.py")
        command = [sys.executable, "-B", str(script), str(package), str(SESSION_CORE)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._told()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def times(self, sizes: Sequence[int]) -> list[float]:
        """Seconds of one call of each batch size."""
        assert self._process.stdin
        self._process.stdin.write(f"{json.dumps(sizes)}\n")
        self._process.stdin.flush()
        told: list[float] = self._told()
        return told

    def rate(self, batch: int, seconds: float) -> float:
        """Rows per second of calls of one size."""
        once = float(np.median(self.times([batch] * 5)))
        times = self.times([batch] * max(5, round(seconds / once)))
        return batch * len(times) / sum(times)

    def mixed(self, most: int, turns: int) -> dict[int, np.ndarray]:
        """Seconds of calls of every size up to `most`, in a drawn order, as a queue asks for them.

        A session that has run another size just before can take longer: OpenVINO prepares itself for each new shape.
        """
        draw = np.random.default_rng(0)
        sizes = [int(each) for _ in range(turns) for each in draw.permutation(most) + 1]
        times = self.times(sizes)
        return {size: calls_of(size, sizes, times) for size in range(1, most + 1)}

    def _told(self) -> Any:
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, "the bare loop has ended"
        return json.loads(line)


def calls_of(size: int, sizes: Sequence[int], times: Sequence[float]) -> np.ndarray:
    """The times of the calls of this batch size."""
    return np.array(times)[np.array(sizes) == size]


@contextmanager
def on(core: int) -> Iterator[None]:
    """This thread, and those that it starts, on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def pin(pid: int) -> None:
    """The thread of the event loop to one core, the session's to the other one."""
    for path in Path(f"/proc/{pid}/task").iterdir():
        thread = int(path.name)
        os.sched_setaffinity(thread, {LOOP_CORE if thread == pid else SESSION_CORE})


def spent(pid: int) -> dict[str, float]:
    """Seconds of CPU so far: of the event loop's thread, of all others of the server, and of the client."""
    by_thread = {each.id: each.user_time + each.system_time for each in psutil.Process(pid).threads()}
    loop = by_thread.pop(pid)
    return {"loop": loop, "session": sum(by_thread.values()), "client": time.process_time()}


def busy(pid: int, before: dict[str, float], load: Load) -> dict[str, float]:
    """The share of a core that each took during a load that has just ended."""
    whole = load.seconds + WARM_UP_S
    return {name: (seconds - before[name]) / whole for name, seconds in spent(pid).items()}


def closed(port: int, asked: Sequence[bytes], clients: int, seconds: float) -> Load:
    """So many clients that each wait for their answer."""

    async def main() -> Drive:
        client: Any = lean.Lean(port)
        drive = await closed_loop(Asking(client, asked, ()), clients, seconds, WARM_UP_S)
        client.close()
        return drive

    return summarize(run(main), "closed", clients)


def opened(
    port: int, asked: Sequence[bytes], times: np.ndarray, rate: float, seconds: float, *, is_flood: bool = False
) -> Load:
    """Requests at these times, those of the warm-up among them, whatever the server does."""

    async def main() -> Drive:
        client: Any = lean.Lean(port)
        drive = await open_loop(Asking(client, asked, ()), times, seconds, WARM_UP_S)
        client.close()
        return drive

    # The loop that wakes up to the microsecond looks at every connection each time: too dear for this many.
    return summarize(asyncio.run(main()) if is_flood else run(main), "open", rate)
