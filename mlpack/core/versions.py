"""Which versions go together, from the catalogue: the opsets that a runtime reads, the runtime in a server's image."""

from __future__ import annotations

import functools
from importlib import resources
from typing import Any


def newest_opset(library: str, version: str) -> int | None:
    """The newest opset that this version reads; None where neither it nor an older one of the library is known.

    A version between two that are known is taken to read what the older one reads.
    """
    known = versions().get(library, {})
    parts = _parts(version)
    older = [each for each in known if _parts(each) <= parts]
    return known[max(older, key=_parts)] if older else None


def in_image(server: str, tag: str) -> str | None:
    """The version of the runtime in a server's image of this tag (`26.07-py3`), where that is known."""
    release, _, _ = tag.partition("-")
    found: str | None = versions().get(server, {}).get(release)
    return found


@functools.cache
def versions() -> dict[str, dict[str, Any]]:
    """The file, as written."""
    import yaml

    text = resources.files("mlpack.core").joinpath("catalogue", "versions.yaml").read_text(encoding="utf-8")
    content: dict[str, dict[str, Any]] = yaml.safe_load(text)
    return content


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
