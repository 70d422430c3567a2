"""Remembers which candidates were how fast on this machine, so that an unchanged run need not time them again."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from mlpack.core.artifact import canonical
from mlpack.core.filesystem import write_atomic
from mlpack.measure.machine import machine_fingerprint

if TYPE_CHECKING:
    from pathlib import Path

    from mlpack.engine.context import Context

Medians = dict[str, dict[str, float]]


def key(fingerprints: list[str], context: Context) -> str:
    """These models, these threads, this machine."""
    content = {"models": fingerprints, "threads": context.threads, "machine": machine_fingerprint()}
    return hashlib.sha256(canonical(content)).hexdigest()


def recall(cache: Path, key: str) -> Medians | None:
    """The medians (ms by candidate and batch size) of an earlier choice, or None."""
    path = cache / "choices" / f"{key}.json"
    return json.loads(path.read_text()) if path.exists() else None


def remember(cache: Path, key: str, medians: Medians) -> None:
    """Keep the medians of a choice."""
    write_atomic(cache / "choices" / f"{key}.json", json.dumps(medians))
