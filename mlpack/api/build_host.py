"""`mlpack build --build-host`: an artifact is finished on another machine over ssh, and comes back as a new version."""

from __future__ import annotations

import json
import os
import shlex
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlpack.core.user_code import is_reference
from mlpack.errors import KINDS, GateInconclusive, MissingLibrary, StageFailed, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlpack.core.artifact import Stored
    from mlpack.core.recipe import Recipe
    from mlpack.core.reporter import Reporter
    from mlpack.core.ssh import Host

_NO_MLPACK = 90
# Everything in a folder of its own that goes when the script ends. What is told is sent back whatever happened. What is
# ours has a hidden name, which none of the user's files has that are sent.
_SCRIPT = """
command -v {mlpack} >/dev/null 2>&1 || exit {no_mlpack}
work=$(mktemp -d "${{TMPDIR:-/tmp}}/mlpack-build.XXXXXX") && cd "$work" || exit 1
trap 'cd / && rm -rf "$work"' EXIT
trap 'exit 143' HUP INT TERM
tar xf - && {mlpack} load .build/artifact.tar --store .build/store >&2 || exit 1
{mlpack} build {reference} --store .build/store {flags} --json > .build/told.json
case $? in
0|6) {mlpack} save {name} .build/built.tar --store .build/store >&2 && cd .build && tar cf - told.json built.tar ;;
*) cd .build && tar cf - told.json ;;
esac
"""
_PASSED_OVER = {"__pycache__", "node_modules"}
_OUTSIDE = "outside/"
_MOST_BYTES = 8_000_000_000


def build_there(
    host: Host,
    command: str,
    stored: Stored,
    recipe: Recipe,
    flags: dict[str, str | int | None],
    store: Path,
    reporter: Reporter,
) -> Stored | None:
    """The new version, in this store; None: all was there already.

    The artifact, the original and the data go there as one tar; a Python file goes with its folder. `flags` are the
    others of `build`, as they were given.

    Raises:
        UsageError: the metric's file lies where it cannot be found there, or too much would be sent.
        MissingLibrary: there is no mlpack there.
        MachineError: that machine cannot be reached.
        StageFailed: it did not answer with a result.
        MlpackError: what the command there ended with.
    """
    from mlpack.store.transfer import pack, unpack

    this, address = stored.artifact, host.address
    with tempfile.TemporaryDirectory(prefix="mlpack-build-") as folder:
        place = Path(folder)
        sent, received = place / "sent.tar", place / "received.tar"
        pack(stored, place / "artifact.tar")
        with tarfile.open(sent, "w", dereference=True) as parcel:
            parcel.add(place / "artifact.tar", ".build/artifact.tar")
            given = _Parcel(parcel, store).take(recipe, this.accuracy.metric, flags)
        words = [word for name, value in given.items() if value for word in (f"--{name}", str(value))]
        reporter.say(f"{address}: sending {sent.stat().st_size / 1e6:.0f} MB")
        script = _SCRIPT.format(
            mlpack=shlex.quote(command),
            no_mlpack=_NO_MLPACK,
            reference=shlex.quote(f"{this.name}@{this.version}"),
            name=shlex.quote(this.name),
            flags=shlex.join(words),
        )
        code, last = host.run(script, sent, received, reporter.say)
        if code == _NO_MLPACK:
            raise MissingLibrary(
                f"there is no {command} on {address}",
                "pip install mlpack-toolchain there, or say where it is: --build-command PATH",
            )
        told = _told(received, place) if code == 0 else None
        if told is None:
            raise StageFailed(f"{address} gave no result: {last or f'exit {code}'}", f"look there: ssh {address}")
        error = told.get("error") or {}
        # A result that samples cannot decide is published there as it would be here; whoever asked is told of it here.
        if error and error.get("kind") != GateInconclusive.__name__:
            kind = KINDS.get(error.get("kind", ""), StageFailed)
            raise kind(f"{address}: {error.get('message')}", error.get("hint", ""))
        if told.get("unchanged"):
            return None
        return unpack(place / "built.tar", store).stored


def _told(received: Path, place: Path) -> dict[str, Any] | None:
    """What the command there printed; the artifact that it made lies in `place` then. None: nothing readable."""
    try:
        with tarfile.open(received, "r:") as answer:
            answer.extractall(
                place, [member for member in answer if member.name in {"told.json", "built.tar"}], filter="data"
            )
        found = json.loads((place / "told.json").read_text(encoding="utf-8"))
    except (tarfile.TarError, OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


class _Parcel:
    """What goes along, laid out there as it is here: relative names hold, and what lies beside a file does so there."""

    def __init__(self, parcel: tarfile.TarFile, store: Path) -> None:
        self._parcel, self._store = parcel, store.resolve()
        self._taken: set[str] = set()
        self._room = _MOST_BYTES

    def take(self, recipe: Recipe, metric: str, flags: dict[str, str | int | None]) -> dict[str, str | int | None]:
        """Put in the original, the data and the user's own code; all flags, with where things lie there."""
        from mlpack.measure.user_metric import is_reference as is_function

        files = {"model": recipe.source.model, "factory": recipe.source.factory, "data": recipe.data.evaluation}
        if str(flags["target"]).endswith((".yaml", ".yml")):
            files["target"] = str(flags["target"])
        if is_function(metric) and self._there(metric) != metric:
            raise UsageError(
                f"the metric {metric} lies outside of this folder, and would not lie so on another machine",
                "work in a folder above it, and optimize with a relative name",
            )
        return {**flags, **{name: self._there(str(value)) for name, value in files.items() if value}}

    def _there(self, value: str) -> str:
        """The same value as it is to be written there, once what it names is in; what names no file stays."""
        file, colon, function = value.partition(":") if is_reference(value) else (value, "", "")
        given = Path(file)
        path = given.expanduser().absolute()
        if not path.exists():
            # An installed module, or what the other machine will miss and say so.
            return value
        inside = not given.is_absolute() and not {"..", "~"}.intersection(part[:2] for part in given.parts)
        below, root = ("", Path.cwd()) if inside else (_OUTSIDE, Path("/"))
        for each in self._files(path.parent if path.suffix == ".py" else path):
            self._put(each, f"{below}{each.relative_to(root)}")
        return value if inside else f"{_OUTSIDE}{path.relative_to(root)}{colon}{function}"

    def _put(self, file: Path, name: str) -> None:
        if name in self._taken:
            return
        self._taken.add(name)
        self._room -= file.stat().st_size
        if self._room < 0:
            raise UsageError(
                f"more than {_MOST_BYTES / 1e9:.0f} GB would be sent, {file} among them",
                "a Python file is sent with its folder: keep the model's in a folder of its own",
            )
        self._parcel.add(file, name, recursive=False)

    def _files(self, path: Path) -> Iterator[Path]:
        """All files below, but hidden ones, environments, and the store."""
        if path.is_file():
            yield path
            return
        for folder, folders, files in os.walk(path, followlinks=True):
            at = Path(folder)
            folders[:] = [
                name
                for name in folders
                if not name.startswith(".")
                and name not in _PASSED_OVER
                and (at / name).resolve() != self._store
                and not (at / name / "pyvenv.cfg").exists()
            ]
            yield from (at / name for name in files if not name.startswith("."))
