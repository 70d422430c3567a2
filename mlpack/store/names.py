"""What artifacts and tags may be called, and the grammar of references to them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mlpack.errors import UsageError

RESERVED_TAG = "latest"
NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_SHA = re.compile(r"sha256:(?P<prefix>[0-9a-f]{4,64})")


@dataclass(frozen=True)
class Reference:
    """`name`, `name@3`, `name@tag` or `name@sha256:…`, taken apart; `name` alone: the latest."""

    name: str
    version: int | None = None
    tag: str | None = None
    digest: str | None = None


def check_name(name: str) -> str:
    """The name, if an artifact may have it.

    Raises:
        UsageError: it may not.
    """
    if not NAME.fullmatch(name):
        proposed = re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-._") or "model"
        raise UsageError(
            f"{name!r} cannot be an artifact's name: use lower-case letters, digits and . _ -",
            f"--name {proposed}",
        )
    return name


def check_tag(tag: str) -> str:
    """The tag, if a version may have it.

    Raises:
        UsageError: it may not: `latest` is reserved, and a number would read as a version.
    """
    if tag == RESERVED_TAG:
        raise UsageError("the tag 'latest' is reserved for the highest version", "use another tag: prod")
    if tag.isdigit() or not NAME.fullmatch(tag):
        raise UsageError(
            f"{tag!r} cannot be a tag: use lower-case letters, digits and . _ -, not a number alone",
            "use another tag: prod",
        )
    return tag


def parse(text: str) -> Reference:
    """A reference from `name[@version|@tag|@sha256:prefix]`.

    Raises:
        UsageError: the text does not follow the grammar.
    """
    name, at, rest = text.partition("@")
    if not NAME.fullmatch(name) or (at and not rest):
        raise UsageError(
            f"{text!r} is no reference to an artifact",
            "write NAME, NAME@3, NAME@TAG, NAME@sha256:PREFIX, or a path with a /",
        )
    if not rest or rest == RESERVED_TAG:
        return Reference(name)
    if rest.isascii() and rest.isdigit():
        return Reference(name, version=int(rest))
    if rest.startswith("sha256:"):
        found = _SHA.fullmatch(rest)
        if not found:
            raise UsageError(f"{rest!r} is no digest", "write sha256: and 4 to 64 of its hexadecimal digits")
        return Reference(name, digest=found["prefix"])
    return Reference(name, tag=rest)
