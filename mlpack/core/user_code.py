"""Calls into the user's own Python, named `package.module:function` or `path/file.py:function`."""

from __future__ import annotations

import ast
import contextlib
import difflib
import hashlib
import importlib
import importlib.machinery
import importlib.metadata
import linecache
import re
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mlpack.errors import MlpackError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

_PATTERN = re.compile(r"^(?P<place>.+\.py|[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):(?P<name>[A-Za-z_]\w*)$")
_imported_from: set[Path] = set()
"""Folders that user code was imported from: their modules make way for another folder's of the same name."""


@dataclass(frozen=True)
class Reference:
    """Where a function of the user lies.

    One of `file` and `module` is given; `folder` is where its own imports are looked for.
    """

    text: str
    name: str
    folder: Path
    file: Path | None = None
    module: str | None = None


def is_reference(text: str) -> bool:
    """Whether the text has the form of a reference to a function."""
    return _PATTERN.match(text) is not None


def find_reference(text: str, what: str, error: type[UsageError]) -> Reference:
    """The function that `text` names; looks for its file but runs nothing.

    Raises `error` when the text is no reference, the file or module is not there, or a file has no such name.
    """
    match = _PATTERN.match(text)
    if match is None:
        raise error(
            f"{what} {text!r} is not a reference to a function",
            "write package.module:function or path/file.py:function",
        )
    place, name = match["place"], match["name"]
    if place == "__main__":
        raise error(
            f"{what} {text!r}: what a notebook or script defines is not there in the processes that would call it",
            f"write it to a file (in a notebook: %%writefile functions.py) and give functions.py:{name}",
        )
    if not place.endswith(".py"):
        reference = Reference(text, name, Path.cwd(), module=place)
        if module_file(reference) is None:
            raise error(
                f"{what} {text!r}: there is no module {place!r}",
                "install it, run from the folder it lies in, or write path/file.py:function",
            )
        return reference
    file = Path(place).expanduser()
    if not file.is_file():
        near = difflib.get_close_matches(file.name, _names_in(file.parent), n=1)
        raise error(
            f"{what} {text!r}: there is no file {place}",
            f"did you mean {file.with_name(near[0])}:{name}?" if near else "check the path; it is relative to here",
        )
    return Reference(text, name, file.resolve().parent, file=file.resolve())


def _names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("*.py")] if folder.is_dir() else []


def module_file(reference: Reference) -> Path | None:
    """The source file of a module, found without importing the module or its parents."""
    if reference.module is None:
        return reference.file
    search: list[str] = [str(reference.folder), *sys.path]
    parts = reference.module.split(".")
    for depth in range(1, len(parts) + 1):
        spec = importlib.machinery.PathFinder.find_spec(".".join(parts[:depth]), search)
        if spec is None:
            return None
        search = list(spec.submodule_search_locations or ())
    return Path(spec.origin) if spec and spec.origin else None


def source_sha256(reference: Reference) -> str:
    """Sha256 of the file, or of the module's source and the version of the distribution it is from.

    What the code itself imports is not followed.
    """
    source = module_file(reference)
    digest = hashlib.sha256(source.read_bytes() if source else b"")
    if reference.module is not None:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            top = reference.module.partition(".")[0]
            owners = importlib.metadata.packages_distributions().get(top, [top])
            digest.update(importlib.metadata.version(owners[0]).encode())
    return digest.hexdigest()


def imported_by(file: Path) -> tuple[str, ...]:
    """Modules that a Python file names at its top level, in its order; none where it is no Python. Runs nothing."""
    try:
        body = ast.parse(file.read_bytes()).body
    except (OSError, SyntaxError, ValueError):
        return ()
    names = [
        name
        for each in body
        for name in (
            [alias.name for alias in each.names]
            if isinstance(each, ast.Import)
            else [each.module]
            if isinstance(each, ast.ImportFrom) and each.level == 0 and each.module
            else []
        )
    ]
    return tuple(dict.fromkeys(names))


def load_function(
    reference: Reference, what: str, error: type[UsageError], source: Path | None = None
) -> Callable[..., Any]:
    """Import the user's code and give the function.

    `source` is a copy of the file to run in place of it, as if it still lay where it was. Raises `error` when
    the code raises or lacks the name (the hint has the nearest spelling).
    """
    with running(reference, f"{what} {reference.text!r}", error):
        module = _module_of(reference, source)
    function = getattr(module, reference.name, None)
    if function is None:
        names = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        near = difflib.get_close_matches(reference.name, names, n=1, cutoff=0.5)
        place = reference.text.rpartition(":")[0]
        known = f"it has {', '.join(sorted(names)[:8]) or 'no functions'}"
        raise error(
            f"{what} {reference.text!r}: {place} has no name {reference.name!r}",
            f"did you mean {place}:{near[0]}?" if near else known,
        )
    if not callable(function):
        raise error(f"{what} {reference.text!r} is no function but a {type(function).__name__}", "name a function")
    return function  # type: ignore[no-any-return]


def _module_of(reference: Reference, source: Path | None) -> ModuleType:
    if reference.file is None:
        return importlib.import_module(reference.module or "")
    text = (source or reference.file).read_bytes()
    name = f"mlpack_user_{hashlib.sha256(str(reference.file).encode() + text).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    module = ModuleType(name)
    module.__file__ = str(reference.file)
    sys.modules[name] = module
    try:
        exec(compile(text, str(reference.file), "exec"), vars(module))  # noqa: S102 - the user's own code
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextlib.contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Within the block imports look into `folder` first, as they do for a script that lies there."""
    folder = folder.resolve()
    for top in _provided(folder) & set(sys.modules):
        home = Path(getattr(sys.modules[top], "__file__", None) or "/")
        if not home.is_relative_to(folder) and any(home.is_relative_to(other) for other in _imported_from):
            for name in [name for name in sys.modules if name.partition(".")[0] == top]:
                del sys.modules[name]
    _imported_from.add(folder)
    importlib.invalidate_caches()
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _provided(folder: Path) -> set[str]:
    """Names of the modules and packages that lie in the folder."""
    entries = folder.iterdir() if folder.is_dir() else ()
    return {path.stem for path in entries if path.suffix == ".py" or path.is_dir()}


class running(contextlib.ContextDecorator):  # noqa: N801 - reads as a verb: with running(reference, ...)
    """A block that runs the user's code: what it raises becomes `error`, its traceback cut to their file.

    Errors of ours pass unchanged.
    """

    def __init__(self, reference: Reference, what: str, error: type[UsageError], hint: str = "") -> None:
        self._reference = reference
        self._what = what
        self._error = error
        self._hint = hint
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> None:
        self._stack.enter_context(importable(self._reference.folder))

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        if isinstance(raised, Exception) and not isinstance(raised, MlpackError):
            place = module_file(self._reference)
            raise self._error(
                f"{self._what} raised {type(raised).__name__}: {raised}\n{trimmed(raised, place)}".rstrip(),
                self._hint or f"correct {place or self._reference.text}",
            ) from raised


def trimmed(raised: BaseException, file: Path | None) -> str:
    """The traceback's frames in the user's file (in its folder where there are none in the file itself)."""
    linecache.checkcache()
    frames = traceback.extract_tb(raised.__traceback__)
    own = [frame for frame in frames if file is not None and Path(frame.filename) == file]
    if not own and file is not None:
        own = [frame for frame in frames if Path(frame.filename).is_relative_to(file.parent)]
    if isinstance(raised, SyntaxError):
        return f'  File "{raised.filename}", line {raised.lineno}\n    {(raised.text or "").strip()}'
    return "".join(traceback.format_list(own)).rstrip()


def absolute(path: str) -> str:
    """The same place from any folder; `random:64` and `package.module:function` are no places."""
    place, colon, name = path.rpartition(":")
    if place.endswith(".py"):
        return f"{Path(place).expanduser().resolve()}{colon}{name}"
    return path if colon and not Path(path).exists() else str(Path(path).expanduser().resolve())
