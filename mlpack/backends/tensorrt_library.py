"""TensorRT and TensorRT-RTX: which of the two is there, in a version that this code is for, and how it is loaded."""

from __future__ import annotations

import ctypes
import functools
import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from packaging.specifiers import SpecifierSet

from mlpack.core.installation import DISTRIBUTION, installed_version
from mlpack.errors import MissingLibrary

if TYPE_CHECKING:
    from collections.abc import Iterator

Name = Literal["tensorrt", "tensorrt_rtx"]


@dataclass(frozen=True)
class _Kind:
    """Where one of the two libraries comes from: any of the distributions, its module, its shared objects."""

    title: str
    distributions: tuple[str, ...]
    module: str
    versions: SpecifierSet
    install: str
    objects: str | None = None


# TensorRT 11 took weak typing, calibrators and precision flags out: code for it does not run on 10, nor the other way.
KINDS: dict[Name, _Kind] = {
    "tensorrt": _Kind(
        title="TensorRT",
        distributions=("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
        module="tensorrt",
        versions=SpecifierSet(">=11,<12"),
        install="pip install 'tensorrt>=11,<12'",
    ),
    "tensorrt_rtx": _Kind(
        title="TensorRT-RTX",
        distributions=("tensorrt-rtx-cu13-bindings",),
        module="tensorrt_rtx_bindings",
        versions=SpecifierSet(">=1.7,<2"),
        install=f"pip install '{DISTRIBUTION}[tensorrt-rtx]'",
        objects="tensorrt_rtx_libs",
    ),
}


@dataclass(frozen=True)
class Library:
    """One loaded library: its Python module, and the one logger that it takes in a process."""

    name: Name
    version: str
    module: Any
    logger: Any

    @property
    def title(self) -> str:
        """As users know it, with its version."""
        return f"{KINDS[self.name].title} {self.version}"


def version_of(name: Name) -> str | None:
    """The version that is installed, or None; nothing is imported."""
    kind = KINDS[name]
    if importlib.util.find_spec(kind.module) is None:
        return None
    return next((found for each in kind.distributions if (found := installed_version(each))), None)


def lacking(name: Name) -> MissingLibrary | None:
    """Why this library cannot be used, or None where it can; nothing is imported."""
    kind, version = KINDS[name], version_of(name)
    if version is None:
        return MissingLibrary(f"{kind.title} is not installed", kind.install)
    if not kind.versions.contains(version, prereleases=True):
        return MissingLibrary(f"{kind.title} {version} is installed, and {kind.versions} is wanted", kind.install)
    if kind.objects is not None and importlib.util.find_spec(kind.objects) is None:
        return MissingLibrary(f"{kind.title} {version} is installed without its shared objects", kind.install)
    return None


@functools.cache
def load(name: Name) -> Library:
    """The library, imported once its version is known to fit.

    Raises:
        MissingLibrary: it is not installed, is of another version, or its shared objects do not load.
    """
    if (error := lacking(name)) is not None:
        raise error
    kind, version = KINDS[name], version_of(name)
    assert version is not None
    try:
        if kind.objects is not None:
            # The wheel's own loader takes them in any order and without their symbols, and says nothing where it fails.
            for path in _objects(kind.objects):
                ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
        module = importlib.import_module(kind.module)
    except (ImportError, OSError) as refused:
        reason = str(refused).splitlines()[0]
        raise MissingLibrary(f"{kind.title} {version} does not load: {reason}", kind.install) from refused
    return Library(name, version, module, _logger(module))


def _objects(package: str) -> Iterator[Path]:
    """The parser's shared object last: it has symbols of the other."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    found = Path(spec.origin).parent.glob("*.so*")
    return iter(sorted(found, key=lambda path: ("parser" in path.name, path.name)))


def _logger(module: Any) -> Any:
    """A logger that keeps its lines; a process has one, whatever is passed later."""

    class Lines(module.ILogger):  # type: ignore[misc] # a class of the library that is loaded
        def __init__(self) -> None:
            module.ILogger.__init__(self)
            self.lines: list[tuple[str, str]] = []

        def log(self, severity: Any, message: str) -> None:
            self.lines.append((severity.name, message))

        def complaint(self) -> str:
            """The last error in one line."""
            errors = [text for level, text in self.lines if level in {"ERROR", "INTERNAL_ERROR"}]
            return " ".join(errors[-1].split()) if errors else "no reason given"

    return Lines()
