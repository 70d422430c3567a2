"""Remembers what a search timed on this machine, so that an unchanged run need not time it again."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from mlpack.core.artifact import canonical
from mlpack.core.filesystem import write_atomic
from mlpack.measure.machine import machine_fingerprint

if TYPE_CHECKING:
    from pathlib import Path

    from mlpack.engine.context import Context


def key(fingerprints: list[str], context: Context) -> str:
    """These models, by fingerprint, these threads, this machine."""
    content = {"models": fingerprints, "threads": context.threads, "machine": machine_fingerprint()}
    return hashlib.sha256(canonical(content)).hexdigest()


def recall(cache: Path, key: str) -> Any:
    """What was timed for an earlier choice, as JSON; None where nothing was."""
    path = cache / "choices" / f"{key}.json"
    return json.loads(path.read_text()) if path.exists() else None


def remember(cache: Path, key: str, timed: Any) -> None:
    """Keep what a choice rests on."""
    write_atomic(cache / "choices" / f"{key}.json", json.dumps(timed))
