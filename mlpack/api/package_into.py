"""`mlpack.package_into`: puts an artifact into a model repository, beside the versions that are served from it."""

from __future__ import annotations

import errno
import json
import shlex
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from mlpack.api.lookup import artifact as find_artifact
from mlpack.api.packing import check_packable, options_from, write_file
from mlpack.core.filesystem import make_folder, refused_by_machine, remove, sweep, sync, temporary_sibling, write_atomic
from mlpack.core.model import sha256_of
from mlpack.core.summary import Commands, Told
from mlpack.core.words import Frozen
from mlpack.errors import MachineError, Tampered, UsageError
from mlpack.runtimes import RUNTIMES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mlpack.core.artifact import Stored
    from mlpack.core.runtime import Content, PackageOptions, Repository
    from mlpack.core.summary import Part

RECORD = "mlpack-version.json"


class Placed(Frozen, Told):
    """A version in a model repository: whether it was new there, and which versions are served, before and now."""

    repository: Path
    runtime: str
    name: str
    version: int
    artifact_digest: str
    added: bool
    active_before: tuple[int, ...]
    active: tuple[int, ...]
    kept: tuple[str, ...]
    next: tuple[str, ...]

    def summary(self) -> Iterator[Part]:
        """What was copied, and which version is served."""
        place = self.repository / self.name / str(self.version)
        yield f"{'added' if self.added else 'there already'}: {place}"
        if self.active_before != self.active:
            back = bool(self.active_before) and self.version < max(self.active_before)
            yield f"  {self.name}: {_versions(self.active_before)} → {_versions(self.active)}{' (rollback)' * back}"
        else:
            yield f"  served: {_versions(self.active)}, as before"
        if self.kept:
            yield f"  kept as they were, for all versions: {', '.join(self.kept)}"
        yield "next:"
        yield Commands(self.next)


def package_into(
    ref: str | None = None,
    *,
    runtime: str,
    into: str | Path,
    activate: bool = False,
    max_batch: int = 8,
    queue_delay_ms: float = 2.0,
    instances: int = 1,
    force: bool = False,
    store: str | Path | None = None,
) -> Placed:
    """Add an artifact's version to a model repository; what is served changes only with `activate`.

    The version is written beside the repository and renamed in: a server that watches it sees all of it or nothing.
    A model that is not there yet is served at once. A version that is there is only activated, which is how to go back.

    Args:
        ref: the artifact, as for `package`.
        runtime: a server with a model repository: `triton`.
        into: the repository's folder, on the file system of its parent; made where it is not there.
        activate: serve this version, and no other, from now on.
        max_batch: the largest batch that the server may form; as all options, only for a model that is new there.
        queue_delay_ms: the longest wait for batch mates, in ms.
        instances: copies of the model that run side by side.
        force: also a candidate, whose accuracy is not proven.
        store: the store; None: what the settings say.

    Raises:
        UsageError: a runtime without a repository; a version with another interface than the model there, which
            one configuration for all versions cannot describe; a candidate without `force`.
        Tampered: a file of the artifact is not the one that was published, or another artifact lies under this
            version; nothing is written.
        MissingLibrary: what reads the server's configuration is not installed.
        MachineError: the disk is full or the place cannot be written.
    """
    options = options_from({"max_batch": max_batch, "queue_delay_ms": queue_delay_ms, "instances": instances})
    server = RUNTIMES[runtime]
    if server.repository is None:
        raise UsageError(
            f"{server.title} serves one model from its own folder",
            f"mlpack package {ref or ''} --runtime {runtime} --out DIR".replace("  ", " "),
        )
    stored = find_artifact(ref, store)
    # Not a link: the place beside it has to be on the same file system.
    repository = Path(into).expanduser().resolve()
    again = ["mlpack", "package", f"{stored.artifact.name}@{stored.artifact.version}", "--runtime", runtime]
    again += ["--into", str(repository), *(["--store", str(store)] if store is not None else [])]
    again += _told(options)
    check_packable(stored, shlex.join(again), force=force)
    again += ["--force"] if stored.artifact.status == "candidate" else []
    files = _of_the_model(dict(server.layout(stored, options)), stored, server.repository)
    make_folder(repository)
    sweep(repository.parent)
    return _placed(stored, runtime, server.repository, repository, files, [*again, "--activate"], activate=activate)


def _told(options: PackageOptions) -> list[str]:
    """The options that are not the usual ones, as they are given."""
    flags = {name: getattr(options, name) for name in ("max_batch", "queue_delay_ms", "instances")}
    fields = type(options).model_fields
    return [
        word
        for name, value in flags.items()
        if value != fields[name].default
        for word in (f"--{name.replace('_', '-')}", f"{value:g}")
    ]


def _of_the_model(layout: Mapping[str, Content], stored: Stored, door: Repository) -> dict[str, Content]:
    """The model's files in a package's repository, by their path in the model's folder."""
    name = stored.artifact.name
    found = {
        PurePosixPath(relative).relative_to(door.folder): content
        for relative, content in layout.items()
        if relative.startswith(f"{door.folder}/")
    }
    others = sorted({path.parts[0] for path in found} - {name})
    if others:
        raise UsageError(
            f"{name}@{stored.artifact.version} is served together with {', '.join(others)}, whose versions would "
            "have to change at the same moment",
            f"mlpack package {name}@{stored.artifact.version} --runtime triton: a repository of its own",
        )
    return {path.relative_to(name).as_posix(): content for path, content in found.items()}


def _placed(
    stored: Stored,
    runtime: str,
    door: Repository,
    repository: Path,
    files: dict[str, Content],
    activation: list[str],
    *,
    activate: bool,
) -> Placed:
    artifact = stored.artifact
    model = repository / artifact.name
    new = str(files[door.config])
    before: tuple[int, ...] = ()
    kept: tuple[str, ...] = ()
    if is_new := not (model / door.config).is_file():
        added = _add(stored, model, repository, files, whole=True)
    else:
        old = _text(model / door.config)
        if different := door.differences(old, new):
            raise UsageError(
                f"{model} has one configuration for all versions, and {artifact.name}@{artifact.version} fits it not: "
                + "; ".join(different),
                f"the same options as there, another repository, or mlpack optimize … --name {artifact.name}-2",
            )
        before, kept = door.active(old), door.kept(old, new)
        if not before and not activate:
            raise UsageError(
                f"{model / door.config} names no version to serve: a server may take {artifact.version} at once",
                f"name those that are served now in it, or {shlex.join(activation)}",
            )
        prefix = f"{artifact.version}/"
        version = {relative: content for relative, content in files.items() if relative.startswith(prefix)}
        added = _add(stored, model, repository, version, whole=False)
        if activate:
            write_atomic(model / door.config, door.activated(old, artifact.version))
    active = (artifact.version,) if activate or is_new else before
    return Placed(
        repository=repository,
        runtime=runtime,
        name=artifact.name,
        version=artifact.version,
        artifact_digest=artifact.digest,
        added=added,
        active_before=before,
        active=active,
        kept=kept,
        next=door.look_again(artifact.name) if artifact.version in active else (shlex.join(activation),),
    )


def _add(stored: Stored, model: Path, repository: Path, files: Mapping[str, Content], *, whole: bool) -> bool:
    """Rename the model, or the version, into the repository; whether it was not there yet."""
    artifact = stored.artifact
    record = f"{artifact.version}/{RECORD}"
    place = model if whole else model / str(artifact.version)
    if not whole and place.exists():
        _check_the_same(place / RECORD, model, stored)
        return False
    if whole and model.exists():
        raise UsageError(f"{model} is there without a configuration", "remove it, or choose another repository")
    # Beside the repository: what lies in it for a moment, a server that watches it would take for a model.
    folder = temporary_sibling(repository)
    try:
        with refused_by_machine(place):
            sums = {relative: write_file(folder / relative, content, (stored,)) for relative, content in files.items()}
            told = {
                "name": artifact.name,
                "version": artifact.version,
                "artifact_digest": artifact.digest,
                "files": sums,
            }
            (folder / record).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
            _rename(folder if whole else folder / str(artifact.version), place)
            sync(place.parent)
    finally:
        remove(folder)
    return True


def _rename(folder: Path, place: Path) -> None:
    try:
        # A folder that somebody made in the meantime is not replaced: rename refuses a folder with files.
        folder.rename(place)
    except OSError as error:
        if error.errno == errno.EXDEV:
            repository = folder.parent
            raise MachineError(
                f"{place} lies on another file system than {repository}, beside which it is written",
                "choose a folder in it as the repository: --into REPO/models",
            ) from error
        if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
            raise UsageError(f"{place} was made in the meantime", "give the same command again") from error
        raise


def _text(config: Path) -> str:
    try:
        return config.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{config} is no text: {error.reason}", "mend it, or take another repository") from error


def _versions(versions: tuple[int, ...]) -> str:
    return ", ".join(map(str, versions)) or "as its own policy says"


def _check_the_same(record: Path, model: Path, stored: Stored) -> None:
    """Whether the version that is there is this artifact, file by file.

    Raises:
        Tampered: it is another one, or nobody knows which, or one of its files was altered.
    """
    artifact = stored.artifact
    sums: dict[str, str] = {}
    try:
        told = json.loads(record.read_bytes())
        digest, sums = told["artifact_digest"], told["files"]
    except (OSError, ValueError, KeyError, TypeError):
        digest = None
    if digest != artifact.digest:
        whose = "was put there by something else" if digest is None else f"is of another artifact ({digest[:12]})"
        raise Tampered(
            f"{record.parent} is there and {whose}",
            f"publish {artifact.name} again under a new version, or choose another repository",
        )
    for relative, published in sums.items():
        if not relative.startswith(f"{artifact.version}/"):
            continue  # a configuration is everybody's
        path = model / relative
        if not path.is_file() or sha256_of(path) != published:
            raise Tampered(f"{path} is not the file that was put there", f"remove {record.parent} and add it again")
