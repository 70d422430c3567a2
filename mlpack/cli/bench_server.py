"""`mlpack bench --server`: latency under load, what failed, and where the time of a request goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlpack.errors import UsageError

if TYPE_CHECKING:
    from mlpack.cli.screen import Screen


def measure(
    screen: Screen,
    url: str,
    model: str | None,
    *,
    rate: str | None,
    clients: str | None,
    seconds: float | None,
    batch: str | None,
    data: str | None,
) -> None:
    """Measure and draw."""
    from mlpack.api.bench_server import SECONDS, bench_server

    with screen.progress() as reporter:
        done = bench_server(
            url,
            model=model,
            rates=None if rate is None else _numbers("--rate", rate, "--rate 10,50"),
            clients=None if clients is None else _whole("--clients", clients, "--clients 1,4"),
            seconds=SECONDS if seconds is None else seconds,
            batch=None if batch is None else _one("--batch", batch),
            data=data,
            reporter=reporter,
        )

    screen.result(done.document(), done)
    for each in done.loads:
        for note in (*each.load.notes, *([each.split.note] if each.split.note else [])):
            screen.warn(f"{each.load.label}: {note}")


def _numbers(flag: str, text: str, hint: str) -> list[float]:
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise UsageError(f"{flag} {text}: numbers with commas between", hint) from None


def _whole(flag: str, text: str, hint: str) -> list[int]:
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() for word in words):
        raise UsageError(f"{flag} {text}: whole numbers with commas between", hint)
    return [int(word) for word in words]


def _one(flag: str, text: str) -> int:
    numbers = _whole(flag, text, f"{flag} 1")
    if len(numbers) != 1:
        raise UsageError(f"{flag} {text}: a server is measured at one batch size at a time", f"{flag} {numbers[0]}")
    return numbers[0]
