"""What `tables.py` says of the results of `serving_load.py`: three tables, each under what was asked."""

from __future__ import annotations

from statistics import median
from typing import Any

Result = dict[str, Any]
_CLIENTS = 32
_ASKED_RATIO, _ASKED_TAIL, _ASKED_GOODPUT, _ASKED_APART = 0.9, 1.3, 0.9, 0.1


def page(content: Result, table: Any) -> str:
    """All sections that there are; `table` draws one of Markdown."""
    drawn = {"ours": _ours, "peers": _peers, "triton": _triton}
    parts = [f"{content['model']}, {content['runs_as']}."]
    parts += [draw(content[name], table) for name, draw in drawn.items() if name in content]
    return "\n\n".join(parts)


def _ours(found: Result, table: Any) -> str:
    curve = ", ".join(f"{batch}: {rate:.0f}" for batch, rate in found["curve"].items())
    carried = ", ".join(f"{rows} ({rate:.0f}/s)" for rows, rate in found["carried"].items())
    full, busy, over = found["throughput"], found["busy"], found["overload"]
    ratio = _middle(full, "ratio")
    loop, client, session = (_middle(full, "busy", name) for name in ("loop", "client", "session"))
    rows = [
        [
            f"throughput at {_CLIENTS} clients, of the bare loop",
            f"{_middle(full, 'ours'):.0f}/s of {_middle(full, 'bare'):.0f}/s",
            f"{ratio:.1%}", f"at least {_ASKED_RATIO:.0%}", _met(ratio >= _ASKED_RATIO),
        ],
        [
            f"P99 at 70% of it ({_middle(busy, 'rate'):.0f}/s), of an ideal queue's",
            f"{_middle(busy, 'p99_ms'):.1f} ms of {_middle(busy, 'ideal_p99_ms'):.1f} ms",
            f"{_middle(busy, 'ratio'):.2f} ×", f"at most {_ASKED_TAIL} ×", _met(_middle(busy, "ratio") <= _ASKED_TAIL),
        ],
        [
            f"goodput at three times of it ({_middle(over, 'rate'):.0f}/s), of its peak",
            f"{_middle(over, 'goodput'):.0f}/s; the rest: {_errors(over)}",
            f"{_middle(over, 'ratio'):.1%}", f"at least {_ASKED_GOODPUT:.0%}",
            _met(_middle(over, "ratio") >= _ASKED_GOODPUT),
        ],
        [
            "memory over these overloads", f"{over[0]['before_mb']:.0f} → {over[-1]['after_mb']:.0f} MB",
            f"{over[-1]['after_mb'] - over[0]['before_mb']:+.1f} MB", "flat", "",
        ],
    ]  # fmt: skip
    head = ["asked of the FastAPI package", "measured", "ratio", "asked", ""]
    return (
        f"{table(head, rows)}\n\nMedians of {len(full)} rounds, in turns; the session on one core, the server's event "
        f"loop and the client on the other one. The bare loop's rows per second by batch size: {curve}; the "
        f"package may form batches of {found['most_rows']}, the best of {carried} at {_CLIENTS} clients. There the "
        f"session's core is busy {session:.0%} of the time; of the other one the event loop takes {loop:.0%} and the "
        f"client {client:.0%}. The ideal queue draws from calls of changing batch sizes, as it asks for them."
    )


def _peers(found: Result, table: Any) -> str:
    rows = []
    for row in found["rows"]:
        name = f"{row['server']}<br>{row['settings']}"
        if "why" in row:
            rows.append([name, f"did not start: {_cell(row['why'])}", *["–"] * 6])
            continue
        full, shared = row["full"], row["shared"]
        rows.append([
            name, f"{full['throughput']:.0f}/s", _ahead(row.get("ahead")), _ms(full["p50_ms"]), _ms(full["p99_ms"]),
            _ms(shared["p50_ms"]), _ms(shared["p99_ms"]), str(full["failed"] + shared["failed"]),
        ])  # fmt: skip
    at = f"{found['rate']:.0f}/s"
    head = ["server", f"{found['clients']} clients", "ours over it", "P50", "P99", f"P50 at {at}", "P99", "failed"]
    return (
        f"{table(head, rows)}\n\nEach serves the same file by the same session of one thread, in an environment of its "
        f"own, asked by the same client with the same rows, one in a request; nothing is pinned. {at} is 70% of what "
        "the slowest carries. Ours over it: throughput, ours in JSON, the median [95%] of turns in a drawn order."
    )


def _ahead(ratio: Result | None) -> str:
    return f"{ratio['ratio']:.2f} × [{ratio['low']:.2f}, {ratio['high']:.2f}]" if ratio else "–"


def _triton(found: Result, table: Any) -> str:
    if "why" in found:
        return f"Triton beside perf_analyzer: not measured here ({_cell(found['why'])})."
    rows, apart = [], []
    for row in found["rows"]:
        keys = row["pairs"][0]["ours"]
        ours, perf = ({key: _middle(row["pairs"], side, key) for key in keys} for side in ("ours", "perf"))
        differ = {key: ours[key] / perf[key] - 1 for key in ("throughput", "p50_ms")}
        apart += [abs(each) for each in differ.values()]
        rows.append([
            f"{row['protocol']}, {row['batch']} row{'s' if row['batch'] > 1 else ''}", str(row["clients"]),
            f"{ours['throughput']:.0f}/s and {perf['throughput']:.0f}/s", f"{differ['throughput']:+.1%}",
            f"{ours['p50_ms']:.2f} and {perf['p50_ms']:.2f} ms", f"{differ['p50_ms']:+.1%}",
            f"{ours['queue_ms']:.2f} and {perf['queue_ms']:.2f} ms",
            f"{ours['compute_ms']:.2f} and {perf['compute_ms']:.2f} ms",
        ])  # fmt: skip
    head = ["each request", "clients", "rows per second: ours and perf_analyzer's", "", "P50", "", "Triton's queue",
            "its compute"]  # fmt: skip
    note = f" {'; '.join(found['notes'])}." if found["notes"] else ""
    return (
        f"{table(head, rows)}\n\nAt most {max(apart):.1%} apart (asked: within {_ASKED_APART:.0%}). Triton's queue and "
        f"compute are means of its own statistics, as each of the two reads them.{note}"
    )


def _middle(rows: list[Result], *keys: str) -> float:
    """The median over the rounds of what lies under these keys."""
    found = []
    for row in rows:
        value: Any = row
        for key in keys:
            value = value[key]
        if value is not None:
            found.append(value)
    return float(median(found)) if found else float("nan")


def _errors(rounds: list[Result]) -> str:
    names = sorted({name for each in rounds for name in each["errors"]})
    sums = {name: sum(each["errors"].get(name, 0) for each in rounds) for name in names}
    unsent = sum(each["unsent"] for each in rounds)
    told = [f"{count:,} × {name}" for name, count in sums.items()] + ([f"{unsent:,} not sent"] if unsent else [])
    return ", ".join(told) or "none"


def _met(is_met: bool) -> str:  # noqa: FBT001 - what it is about stands in the row
    return "met" if is_met else "**missed**"


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} ms"


def _cell(text: str) -> str:
    """Text that breaks no table."""
    return " ".join(text.replace("|", "/").split())[:200]
