"""Reports the course of requests to an OpenTelemetry collector, where the package was made with traces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from fastapi import Request

    from .course import Course
    from .description import Description


class Tracing(Protocol):
    """Where finished requests are reported."""

    def record(self, request: Request, course: Course, status: int) -> None:
        """Report a request that was answered or refused. Never waits."""
        ...

    async def close(self) -> None:
        """Report what is left."""
        ...


def open_tracing(description: Description) -> Tracing | None:
    """None where the package was made without traces, and needs no library for them."""
    if description.traces == "none":
        return None
    from .otlp import OtlpTracing

    return OtlpTracing(description)
