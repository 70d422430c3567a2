"""Fixtures of packaged servers; serving.py, which tests can import by its own name, has what they are made of."""

from __future__ import annotations

from serving import packaged, serve

__all__ = ["packaged", "serve"]
