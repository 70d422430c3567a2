"""`mlpack.bench_server()`: the latency of a running server under load, and where the time of a request goes."""

from __future__ import annotations

import asyncio
import ipaddress
import math
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mlpack.api.server_rows import rows_for
from mlpack.api.server_timings import LoadResult, ServerBenched
from mlpack.core.notebook import progress_in_notebooks
from mlpack.core.reporter import Reporter, Silent
from mlpack.errors import StageFailed, UsageError, unknown

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mlpack.measure.clients.client import Client, Served
    from mlpack.measure.load_drive import Asking
    from mlpack.measure.server_time import Spent

SECONDS = 10.0
CLIENTS_AT_ONCE = (1, 4)
TIMEOUT_S = 30.0
_FEWEST_REQUESTS = 10
_MOST_REQUESTS = 1_000_000
_TRIES = 3
_BETWEEN_TRIES_S = 0.5


@progress_in_notebooks
def bench_server(
    url: str,
    *,
    model: str | None = None,
    rates: Sequence[float] | None = None,
    clients: Sequence[int] | None = None,
    seconds: float = SECONDS,
    batch: int | None = None,
    data: str | Path | None = None,
    seed: int = 0,
    timeout_s: float = TIMEOUT_S,
    reporter: Reporter | None = None,
) -> ServerBenched:
    """Drive a running server (`http://host:port` or `grpc://host:port`, V2 inference protocol) and time it.

    `clients` are closed loops: so many connections, each sending its next request when the last is answered.
    `rates` are open loops: requests per second that come whatever the server does (Poisson, from `seed`), counted
    from when they were due. Neither given: 1 and 4 clients. `seconds` is the time of each, after a warm-up.
    `model` None: the only one that is ready. Rows are those of `data` (one array per input), else synthetic.

    Raises:
        UsageError: flags, the address or the model's name are wrong, or what answers speaks another protocol.
        DataError: data that does not fit the model.
        MissingLibrary: the extra `server` is not installed.
        MachineError: nothing answers there.
        StageFailed: the server answers no request; with its own message.
    """
    from mlpack.measure.clients import CLIENTS
    from mlpack.measure.load_drive import Asking, run
    from mlpack.measure.machine import machine_fingerprint

    scheme, host = _address(url, CLIENTS.names())
    _check_load(rates, clients, seconds, timeout_s)
    make = CLIENTS[scheme]
    told = reporter or Silent()

    async def main() -> ServerBenched:
        async with make(url, timeout_s) as client:
            server = await client.server()
            served = await _served(client, url, model)
            rows = rows_for(served, batch, data, seed)
            requests = [client.request(served.name, arrays) for arrays in rows.requests]
            asking = Asking(client, requests, served.outputs)
            await _first_answer(asking, served.name, server, rows.source)
            results = await _measure(client, asking, served.name, rates, clients, seconds, seed, told)
        return ServerBenched(
            url=url,
            server=server,
            form=client.form,
            model=served.name,
            version=served.version,
            batch=rows.batch,
            rows=rows.source,
            seed=seed,
            machine=machine_fingerprint(),
            loads=results,
            notes=(*rows.notes, *_shared_machine(host)),
        )

    done = run(main)
    if not any(each.load.good for each in done.loads):
        said = next((error for each in done.loads for error in each.load.errors), "no answer in time")
        raise StageFailed(f"{done.server} answered no request for {done.model!r}: {said}", "look at the server's log")
    return done


def _address(url: str, schemes: tuple[str, ...]) -> tuple[str, str]:
    """Scheme and host."""
    hint = "--server http://127.0.0.1:8000, or grpc://127.0.0.1:8001"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"{url} is no address: {error}", hint) from error
    if parts.scheme not in schemes or not url.startswith(f"{parts.scheme}://"):
        raise UsageError(f"{url} does not begin with {' or '.join(f'{each}://' for each in schemes)}", hint)
    if not host or (parts.scheme != "http" and port is None):
        raise UsageError(f"{url} lacks a {'port' if host else 'host'}", hint)
    return parts.scheme, host


def _check_load(rates: Sequence[float] | None, clients: Sequence[int] | None, seconds: float, timeout_s: float) -> None:
    from mlpack.measure.load_drive import MOST_CONNECTIONS

    if rates is not None and clients is not None:
        raise UsageError("--rate is an open loop and --clients a closed one: a run is one of them", "leave one out")
    if not 0 < seconds < math.inf or not 0 < timeout_s < math.inf:
        raise UsageError(f"{seconds:g} seconds are no time to measure in", f"--seconds {SECONDS:g}")
    if rates is not None and not rates:
        raise UsageError("no rate is given", "--rate 50")
    if clients is not None and not clients:
        raise UsageError("no number of clients is given", "--clients 4")
    for rate in rates or ():
        _check_rate(rate, seconds)
    for count in clients or ():
        if not 1 <= count <= MOST_CONNECTIONS:
            raise UsageError(f"clients are 1 to {MOST_CONNECTIONS}, not {count}", "--clients 4")


def _check_rate(rate: float, seconds: float) -> None:
    if not 0 < rate < math.inf:
        raise UsageError(f"a rate is a number of requests per second above 0, not {rate:g}", "--rate 50")
    if rate * seconds < _FEWEST_REQUESTS:
        raise UsageError(
            f"{rate:g} requests/s for {seconds:g} s are too few to measure",
            f"--seconds {math.ceil(_FEWEST_REQUESTS / rate)}",
        )
    if rate * seconds > _MOST_REQUESTS:
        raise UsageError(
            f"{rate:g} requests/s for {seconds:g} s are more than {_MOST_REQUESTS:,} requests", "--rate 1000"
        )


async def _served(client: Client, url: str, name: str | None) -> Served:
    from mlpack.measure.clients.client import UnknownModel

    if name is None:
        ready = await client.ready_models()
        if ready is None:
            raise UsageError(f"{url} does not list its models", "say which one: --model NAME")
        if len(ready) != 1:
            told = f"{len(ready)} models are ready: {', '.join(ready)}" if ready else "no model is ready"
            raise UsageError(f"{url}: {told}", f"--model {ready[0]}" if ready else "load one, or wait for it")
        (name,) = ready
    try:
        return await client.model(name)
    except UnknownModel as error:
        ready = await client.ready_models()
        if ready is not None and name not in ready:
            raise unknown("model", name, ready) from error
        raise UsageError(f"{url} does not serve {name!r}: {error}", "check --model") from error


async def _first_answer(asking: Asking, model: str, server: str, rows: str) -> None:
    """One good answer before anything is timed; a server that is busy is asked again."""
    for turn in range(_TRIES):
        await asyncio.sleep(_BETWEEN_TRIES_S if turn else 0)
        answer = await asking()
        if answer.error is None:
            return
    hint = (
        "the rows are made up: --data rows.npz sends real ones" if rows == "synthetic" else "check --data and --batch"
    )
    raise StageFailed(f"{server} answered no request for {model!r}: {answer.error}", hint)


async def _measure(
    client: Client,
    asking: Asking,
    model: str,
    rates: Sequence[float] | None,
    clients: Sequence[int] | None,
    seconds: float,
    seed: int,
    told: Reporter,
) -> tuple[LoadResult, ...]:
    import numpy as np

    from mlpack.measure.arrivals import poisson_times
    from mlpack.measure.load import summarize
    from mlpack.measure.load_drive import closed_loop, open_loop
    from mlpack.measure.server_time import split

    warm_up_s = min(2.0, max(0.2, 0.2 * seconds))
    asked = tuple(dict.fromkeys(rates if rates is not None else clients or CLIENTS_AT_ONCE))
    results = []
    for turn, each in enumerate(asked):
        told.say(f"{each:g} {'requests/s' if rates is not None else 'clients'}", turn, len(asked))
        marking = asyncio.create_task(_spent_after(client, model, warm_up_s))
        if rates is not None:
            early = poisson_times(each, warm_up_s, seed + 1)
            times = np.concatenate([early, warm_up_s + poisson_times(each, seconds, seed)])
            drive = await open_loop(asking, times, seconds, warm_up_s)
        else:
            drive = await closed_loop(asking, int(each), seconds, warm_up_s)
        load = summarize(drive, "closed" if rates is None else "open", each)
        before, after = await marking, await client.spent(model)
        results.append(LoadResult(load, split(before, after, load.good, load.service_s)))
    return tuple(results)


async def _spent_after(client: Client, model: str, seconds: float) -> Spent | None:
    """The server's sums when the warm-up is over."""
    await asyncio.sleep(seconds)
    return await client.spent(model)


def _shared_machine(host: str) -> tuple[str, ...]:
    try:
        is_here = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_here = host == "localhost"
    return ("client and server share this machine's CPUs: a client elsewhere may see other numbers",) if is_here else ()
