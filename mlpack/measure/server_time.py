"""Where the time of a request goes: the server's own sums, before and after a run, against the client's clock."""

from __future__ import annotations

from dataclasses import dataclass

PARTS = ("queue", "preprocess", "compute", "postprocess")
"""What servers tell; the rest of what a client waits is `NETWORK`."""
NETWORK = "network"
_OTHERS_SHARE = 0.1
_AT_ONCE = 32
"""Requests under way while the sums were read: they may be counted on one side only."""


@dataclass(frozen=True)
class Spent:
    """What a server has added up since it started: answered requests, and seconds of each of `PARTS`."""

    source: str
    requests: float
    seconds: dict[str, float]


@dataclass(frozen=True)
class Part:
    """One part of a mean request; the shares of all parts sum to 1."""

    name: str
    mean_ms: float
    share: float


@dataclass(frozen=True)
class Split:
    """The parts of a mean request, or why there are none. `source`: whose statistics they come from."""

    parts: tuple[Part, ...] = ()
    source: str = ""
    reason: str | None = None
    note: str | None = None


def split(before: Spent | None, after: Spent | None, answered: int, mean_s: float) -> Split:
    """The parts of the mean request of a run that saw `answered` answers after `mean_s` seconds each.

    The server's parts are means over all requests that it answered in that time. What the client waited beyond
    them is the network: sending, receiving, and both sides' HTTP or gRPC.
    """
    if before is None or after is None:
        return Split(reason="the server has no statistics that say where the time went")
    requests = after.requests - before.requests
    spent = {name: after.seconds.get(name, 0.0) - before.seconds.get(name, 0.0) for name in PARTS}
    if requests <= 0 or answered == 0 or min(spent.values()) < 0:
        return Split(reason="the server's statistics do not hold this run: it started anew, or another one answered")
    means = {name: seconds / requests for name, seconds in spent.items()}
    rest = mean_s - sum(means.values())
    if rest < 0:
        return Split(reason="the server's statistics add up to more than the clients waited: others use it too")
    parts = tuple(Part(name, each * 1e3, each / mean_s) for name, each in {NETWORK: rest, **means}.items())
    note = None
    if requests - answered > max(_AT_ONCE, _OTHERS_SHARE * answered):
        note = f"the server answered {requests:.0f} requests, {answered} of them ours: the parts are means over all"
    return Split(parts, after.source, note=note)
