"""What may differ from one place to the next where a package runs: read from the environment, once, at the start."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from .bodies import Bounds
from .environment import BadSetting, number

if TYPE_CHECKING:
    from .description import Description

_LEAST_TOKEN = 16
_HELD_BODIES = 4
_LEAST_HELD_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True)
class Settings:
    """What the server takes from clients, and from where."""

    bounds: Bounds
    token: str | None = field(repr=False)
    redis_url: str | None = field(repr=False)


def read_settings(description: Description) -> Settings:
    """MAX_BODY_BYTES, MAX_HELD_BYTES, CLIENT_SECONDS, AUTH_TOKEN or AUTH_TOKEN_FILE, REDIS_URL.

    Raises:
        BadSetting: one is no number, is missing where the package needs it, or is too short to be a secret.
    """
    _check_collector(description)
    body_bytes = number("MAX_BODY_BYTES", description.limits.max_body_bytes)
    held_bytes = number("MAX_HELD_BYTES", max(_HELD_BODIES * body_bytes, _LEAST_HELD_BYTES))
    return Settings(
        bounds=Bounds(body_bytes, held_bytes, number("CLIENT_SECONDS", 20)),
        token=_token(description),
        redis_url=_redis_url(description),
    )


def _token(description: Description) -> str | None:
    """What clients have to send; None where everybody may ask. A token that is set counts whatever the package says."""
    path = os.environ.get("AUTH_TOKEN_FILE")
    token = os.environ.get("AUTH_TOKEN")
    if path and token:
        raise BadSetting("AUTH_TOKEN and AUTH_TOKEN_FILE are both set; one of them says the token")
    if path:
        try:
            token = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise BadSetting(f"AUTH_TOKEN_FILE={path} cannot be read: {error}") from error
    if token is None or (token == "" and not path):
        if description.access == "token":
            raise BadSetting("the package was made with --access token: set AUTH_TOKEN or AUTH_TOKEN_FILE")
        return None
    if len(token) < _LEAST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise BadSetting(f"the token must have at least {_LEAST_TOKEN} characters of ASCII and no space")
    return token


def _redis_url(description: Description) -> str | None:
    if description.cache is None or description.cache.store != "redis":
        return None
    url = os.environ.get("REDIS_URL", "")
    if not url.startswith(("redis://", "rediss://", "unix://")):
        raise BadSetting("the package was made with --cache redis: set REDIS_URL, as in redis://HOST:6379/0")
    return url


def _check_collector(description: Description) -> None:
    """OpenTelemetry reads its own variables. Without one that says where, it would send to this machine's port 4318."""
    told = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    is_off = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if description.traces == "otlp" and not is_off and not any(os.environ.get(name) for name in told):
        raise BadSetting(f"the package was made with --traces otlp: set {told[0]}, as in http://HOST:4318")
