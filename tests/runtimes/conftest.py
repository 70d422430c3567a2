"""Fixtures of packaged servers; serving.py, which tests can import by its own name, has what they are made of."""

from __future__ import annotations

from other_servers import kept
from serving import packaged, serve

__all__ = ["kept", "packaged", "serve"]
