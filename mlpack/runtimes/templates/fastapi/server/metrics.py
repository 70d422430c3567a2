"""What /metrics shows: requests by status, where their time goes, batches, and what waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .description import Description

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class Metrics:
    """The server's own registry."""

    def __init__(self, description: Description) -> None:
        self.registry = CollectorRegistry()
        sizes = sorted({1, 2, 4, 8, 16, 32, 64, 128, description.limits.max_rows or 1})
        self.requests = Counter(
            "inference_requests", "Inference requests by HTTP status", ["status"], registry=self.registry
        )
        if description.fallback:
            self.fallbacks = Counter(
                "inference_fallbacks", "Requests that the fallback answered", registry=self.registry
            )
        self.refused = Counter(
            "inference_refused", "Requests that were let nowhere, by reason", ["reason"], registry=self.registry
        )
        self.seconds = Histogram(
            "inference_request_seconds",
            "Time from reading an answered request to its response",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.parts = Histogram(
            "inference_part_seconds",
            "Where the time of a request goes: reading it, preparing raw samples, waiting, the model's run, "
            "making columns of its outputs, writing the answer",
            ["part"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.batch_rows = Histogram(
            "inference_batch_rows",
            "Rows of the batches that the model ran",
            buckets=sizes,
            registry=self.registry,
        )
        self.queue_depth = Gauge("inference_queue_depth", "Requests that wait", registry=self.registry)
        self.held_bytes = Gauge(
            "inference_held_bytes", "Bytes of bodies whose requests are not answered yet", registry=self.registry
        )
        if description.cache:
            self.cache_requests = Counter(
                "inference_cache_requests",
                "What the cache said: hit, miss or error",
                ["result"],
                registry=self.registry,
            )
            for result in ("hit", "miss", "error"):
                self.cache_requests.labels(result)
        if description.cache and description.cache.store == "memory":
            self.cache_bytes = Gauge("inference_cache_bytes", "Bytes of kept answers", registry=self.registry)
        raw = description.raw
        before = ["prepare"] if raw and raw.fields else []
        after = ["finish"] if raw and raw.columns else []
        for part in ("preprocess", *before, "queue", "compute", *after, "postprocess"):
            self.parts.labels(part)

    def observe(self, seconds: float, parts: Mapping[str, float]) -> None:
        """An answered request: its whole time, and that of each of its parts."""
        self.seconds.observe(seconds)
        for part, spent in parts.items():
            self.parts.labels(part).observe(spent)
