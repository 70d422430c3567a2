"""Explain: why a stage would run again, told by comparing what goes into it with what went in before."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_HASH = re.compile(r"[0-9a-f]{16,}")
_SHOWN_DIGITS = 8
_ABSENT = object()


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """One line for each ingredient that differs, nested keys dotted: `options.per_channel: true → false`."""
    one, two = dict(_flat(_named(old, new))), dict(_flat(_named(new, old)))
    return [
        f"{key}: {_shown(one.get(key, _ABSENT))} → {_shown(two.get(key, _ABSENT))}"
        for key in dict.fromkeys([*one, *two])
        if one.get(key, _ABSENT) != two.get(key, _ABSENT)
    ]


def earlier(cache: Path) -> dict[str, list[dict[str, Any]]]:
    """The ingredients of every finished stage in the cache by stage, newest first."""
    records = sorted((cache / "stages").glob("*/*/stage.json"), key=_age, reverse=True)
    found: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        content = _read(record)
        if content is not None:
            found.setdefault(content["stage"], []).append(content["ingredients"])
    return found


def nearest(before: list[dict[str, Any]], content: Mapping[str, Any]) -> dict[str, Any] | None:
    """The ingredients with the fewest differences from `content`; the newest of equals; None: there are none."""
    return min(before, key=lambda each: len(differences(each, content)), default=None)


def _age(record: Path) -> int:
    return record.stat().st_mtime_ns if record.exists() else 0


def _read(record: Path) -> dict[str, Any] | None:
    """One `stage.json`; None where another process has just removed it."""
    try:
        content: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return content


def _named(these: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """What has another name on the other side is told by its name alone: another target, not ten numbers."""

    def name(value: Any) -> Any:
        return value.get("name") if isinstance(value, dict) else None

    return {key: name(value) if name(value) != name(others.get(key)) else value for key, value in these.items()}


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and plain values; lists are compared as a whole."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _flat(item, f"{prefix}.{key}" if prefix else str(key))
    elif prefix:
        yield prefix, value


def _shown(value: Any) -> str:
    if value is _ABSENT:
        return "absent"
    if isinstance(value, str):
        return f"{value[:_SHOWN_DIGITS]}…" if _HASH.fullmatch(value) else value
    return json.dumps(value, ensure_ascii=False)
