"""`mlpack.package_into`: puts an artifact into a model repository, beside the versions that are served from it."""

from __future__ import annotations

import shlex
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

from mlpack.api import cutover
from mlpack.api.lookup import artifact as find_artifact
from mlpack.api.packing import check_packable, copies, options_from
from mlpack.core.filesystem import make_folder, sweep
from mlpack.core.summary import Commands, Told
from mlpack.core.words import Frozen
from mlpack.errors import UsageError
from mlpack.runtimes import RUNTIMES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mlpack.core.artifact import Stored
    from mlpack.core.runtime import Content, PackageOptions, Repository
    from mlpack.core.summary import Part


class Placed(Frozen, Told):
    """A version in a model repository: whether it was new there, and which versions are served, before and now.

    `models` are those that answer together, who asks the others last. `pending`: the old version of those that are
    asked is still served, until the command is given once more.
    """

    repository: Path
    runtime: str
    name: str
    version: int
    models: tuple[str, ...]
    artifact_digest: str
    added: bool
    active_before: tuple[int, ...]
    active: tuple[int, ...]
    pending: bool
    kept: tuple[str, ...]
    next: tuple[str, ...]

    def summary(self) -> Iterator[Part]:
        """What was copied, and which version is served."""
        place = self.repository / self.name / str(self.version)
        others = f" and {len(self.models) - 1} models beside it" if len(self.models) > 1 else ""
        yield f"{'added' if self.added else 'there already'}: {place}{others}"
        if self.pending:
            yield f"  {self.models[-1]} asks version {self.version} from now on"
            yield f"  {self.name}: {_versions(self.active)}, until the server has taken that and this is said again"
        elif self.active_before != self.active:
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
    instances: int | Literal["fill"] = 1,
    triton_backend: Literal["usual", "own", "python"] = "usual",
    limit_threads: int | None = None,
    priority: int = 1,
    force: bool = False,
    store: str | Path | None = None,
) -> Placed:
    """Add an artifact's version to a model repository; what is served changes only with `activate`.

    The version is written beside the repository and renamed in: a server that watches it sees all of it or nothing.
    A model that is not there yet is served at once. A version that is there is only activated, which is how to go back.
    An ensemble comes with the models that it asks. These serve both versions while it changes over, so that no request
    meets a version that is gone; once the server has taken the new one, the same call again ends the old one.

    Args:
        ref: the artifact, as for `package`.
        runtime: a server with a model repository: `triton`.
        into: the repository's folder, on the file system of its parent; made where it is not there.
        activate: serve this version, and no other, from now on.
        max_batch: the largest batch that the server may form; as all options, only for a model that is new there.
        queue_delay_ms: the longest wait for batch mates, in ms.
        instances: copies of the model that run side by side, or `fill`, as for `package`.
        triton_backend: as for `package`.
        limit_threads: as for `package`; the server has to be started with the same limit.
        priority: as for `package`.
        force: also a candidate, whose accuracy is not proven.
        store: the store; None: what the settings say.

    Raises:
        UsageError: a runtime without a repository; a version with another interface than the model there, which
            one configuration for all versions cannot describe; a version that something else there asks by its number
            would go; a candidate without `force`.
        Tampered: a file of the artifact is not the one that was published, or another artifact lies under this
            version; nothing is written.
        MissingLibrary: what reads the server's configuration is not installed.
        MachineError: the disk is full or the place cannot be written.
    """
    server = RUNTIMES[runtime]
    if server.repository is None:
        raise UsageError(
            f"{server.title} serves one model from its own folder",
            f"mlpack package {ref or ''} --runtime {runtime} --out DIR".replace("  ", " "),
        )
    stored = find_artifact(ref, store)
    options = options_from(
        {
            "max_batch": max_batch,
            "queue_delay_ms": queue_delay_ms,
            "instances": copies(instances, stored),
            "triton_backend": triton_backend,
            "limit_threads": limit_threads,
            "priority": priority,
        },
        runtime,
    )
    # Not a link: the place beside it has to be on the same file system.
    repository = Path(into).expanduser().resolve()
    again = ["mlpack", "package", f"{stored.artifact.name}@{stored.artifact.version}", "--runtime", runtime]
    again += ["--into", str(repository), *(["--store", str(store)] if store is not None else [])]
    again += _told(options)
    check_packable(stored, shlex.join(again), force=force)
    again += ["--force"] if stored.artifact.status == "candidate" else []
    files = _by_model(server.layout(stored, options), server.repository)
    make_folder(repository)
    sweep(repository.parent)
    return _placed(stored, runtime, server.repository, repository, files, [*again, "--activate"], activate=activate)


def _told(options: PackageOptions) -> list[str]:
    """The options that are not the usual ones, as they are given."""
    fields = type(options).model_fields
    return [
        word
        for name in ("max_batch", "queue_delay_ms", "instances", "triton_backend", "limit_threads", "priority")
        if (value := getattr(options, name)) != fields[name].default
        for word in (f"--{name.replace('_', '-')}", value if isinstance(value, str) else f"{value:g}")
    ]


def _by_model(layout: Mapping[str, Content], door: Repository) -> dict[str, dict[str, Content]]:
    """The files of each model in a package's repository, by their path in the model's folder."""
    files: dict[str, dict[str, Content]] = {}
    for relative, content in layout.items():
        if relative.startswith(f"{door.folder}/"):
            path = PurePosixPath(relative).relative_to(door.folder)
            files.setdefault(path.parts[0], {})[path.relative_to(path.parts[0]).as_posix()] = content
    return files


def _placed(
    stored: Stored,
    runtime: str,
    door: Repository,
    repository: Path,
    files: Mapping[str, Mapping[str, Content]],
    activation: list[str],
    *,
    activate: bool,
) -> Placed:
    artifact = stored.artifact
    command = shlex.join(activation)
    members = cutover.members_of(files, repository, door)
    cutover.check_fits(members, stored, door)
    if activate:
        cutover.check_nobody_else_asks(members, artifact.version, repository, door)
    else:
        cutover.check_stays_whole(members, artifact.version, door, command)
    # Who is new and asks comes when those whom it asks are served.
    late = [each for each in members if each.asks and each.old is None]
    added = cutover.place(stored, repository, [each for each in members if each not in late])
    pending = activate and cutover.activate(members, artifact.version, door)
    added |= cutover.place(stored, repository, late)
    (own,) = (each for each in members if each.name == artifact.name)
    before = door.active(own.old) if own.old is not None else ()
    config = own.folder / door.config
    active = door.active(config.read_text(encoding="utf-8")) if own.old is not None else (artifact.version,)
    look = tuple(line for each in members for line in door.look_again(each.name))
    if artifact.version not in active:
        following: tuple[str, ...] = (command,)
    else:
        following = (*look, command) if pending else look
    return Placed(
        repository=repository,
        runtime=runtime,
        name=artifact.name,
        version=artifact.version,
        models=tuple(each.name for each in members),
        artifact_digest=artifact.digest,
        added=added,
        active_before=before,
        active=active,
        pending=pending,
        kept=_kept(members, door),
        next=following,
    )


def _kept(members: list[cutover.Member], door: Repository) -> tuple[str, ...]:
    """Settings in which the models there differ from what is packaged now."""
    found = (name for each in members if each.old is not None for name in door.kept(each.old, each.new))
    return tuple(dict.fromkeys(found))


def _versions(versions: tuple[int, ...]) -> str:
    return ", ".join(map(str, versions)) or "as its own policy says"
