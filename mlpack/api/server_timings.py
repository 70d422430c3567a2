"""What `bench_server` measured, as records: one row per rate or number of clients."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from mlpack.core.summary import Told

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlpack.core.summary import Part
    from mlpack.measure.load import Load
    from mlpack.measure.server_time import Split


@dataclass(frozen=True)
class LoadResult:
    """One load, and where the time of a mean request went."""

    load: Load
    split: Split

    def document(self) -> dict[str, Any]:
        """As `--json` prints it."""
        split = self.split
        return {
            **load_document(self.load),
            "components": [{"name": each.name, "mean": each.mean_ms, "share": each.share} for each in split.parts],
            "components_source": split.source or None,
            "components_reason": split.reason,
            "notes": [*self.load.notes, *([split.note] if split.note else [])],
        }


def load_document(load: Load) -> dict[str, Any]:
    """A load as `--json` prints it, in ms."""
    return {
        "arrivals": load.arrivals,
        "clients": int(load.asked) if load.arrivals == "closed" else None,
        "rate": load.asked if load.arrivals == "open" else None,
        "rate_sent": load.rate_sent,
        "lag_p99": load.lag_p99_ms,
        "seconds": load.seconds,
        "requests": load.requests,
        "answered": load.good,
        "errors": load.errors,
        "unsent": load.unsent,
        "throughput": load.throughput,
        **{each.name: each.ms for each in load.percentiles},
        **{f"{each.name}_ci95": each.ci95 for each in load.percentiles},
        **{f"{each.name}_reason": each.reason for each in load.percentiles},
        "blocks": load.blocks,
        "p50_blocks_ci95": load.p50_blocks_ci95,
        "notes": list(load.notes),
    }


@dataclass(frozen=True)
class ServerBenched(Told):
    """What `bench_server` measured of one model of one server.

    `form` is how tensors were written (json, binary, protobuf), `rows` what was sent: real or synthetic rows.
    """

    url: str
    server: str
    form: str
    model: str
    version: str
    batch: int
    rows: str
    seed: int
    machine: dict[str, Any]
    loads: tuple[LoadResult, ...]
    notes: tuple[str, ...]

    def summary(self) -> Iterator[Part]:
        """Latency by load, and where the time of a request goes."""
        from mlpack.api.server_summary import server_summary

        return server_summary(self)

    def document(self) -> dict[str, Any]:
        """As `--json` prints it."""
        kept = asdict(self)
        return {**kept, "unit": "ms", "loads": [each.document() for each in self.loads], "notes": list(self.notes)}
