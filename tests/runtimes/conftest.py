"""Fixtures of packaged servers; serving.py, which tests can import by its own name, has what they are made of."""

from __future__ import annotations

from other_servers import kept
from serving import nothing_left, packaged, serve

__all__ = ["kept", "nothing_left", "packaged", "serve"]
