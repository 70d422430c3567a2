"""A plug-in folder's table: names to import strings, loaded when first asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from mlpack.core.installation import DISTRIBUTION
from mlpack.errors import MissingLibrary, unknown

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T")


class Table(Generic[T]):
    """Plug-ins of one kind: `{name: "package.module:attribute"}`.

    Names are strings, so that listing them imports nothing heavy. Adding a plug-in is one file and one line.
    `extra` is the extra of our distribution that brings the libraries of them all.
    """

    def __init__(self, kind: str, entries: Mapping[str, str], extra: str = "") -> None:
        self.kind = kind
        self._entries = dict(entries)
        self._extra = extra

    def names(self) -> tuple[str, ...]:
        """All names, in the order in which they were written down."""
        return tuple(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __getitem__(self, name: str) -> T:
        """The plug-in of this name.

        Raises:
            UsageError: no such name (the hint has the nearest right spelling).
            MissingLibrary: its library is not installed.
        """
        if name not in self._entries:
            raise unknown(self.kind, name, self._entries)
        module, _, attribute = self._entries[name].partition(":")
        try:
            return cast("T", getattr(importlib.import_module(module), attribute))
        except ModuleNotFoundError as error:
            library = (error.name or "").partition(".")[0]
            if library in {"", "mlpack"}:
                raise
            wanted = f"'{DISTRIBUTION}[{self._extra}]'" if self._extra else library
            raise MissingLibrary(
                f"{self.kind} {name!r} needs the library {library}", f"pip install {wanted}"
            ) from error
