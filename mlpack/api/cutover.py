"""From one version to another in a model repository, also where several models answer together: each step is whole.

A server looks at its folder when it likes. So a model that others ask by version is never left without the version that
they ask: first their models serve both versions, then who asks them changes over, and the old version goes when the
command is given once more, after the server has looked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlpack.api.placing import add
from mlpack.core.filesystem import write_atomic
from mlpack.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from mlpack.core.artifact import Stored
    from mlpack.core.runtime import Content, Repository


@dataclass(frozen=True)
class Member:
    """One of the models that an artifact is served by; `old` is its configuration there, None where it is new.

    `asks`: whether it asks the others.
    """

    name: str
    folder: Path
    files: Mapping[str, Content]
    new: str
    old: str | None
    asks: bool


def members_of(files: Mapping[str, Mapping[str, Content]], repository: Path, door: Repository) -> list[Member]:
    """The models by name, those that are asked before those that ask.

    Raises:
        UsageError: a configuration that is there is no text.
        MissingLibrary: what reads it is not installed.
    """
    found = []
    for name, own in files.items():
        config = repository / name / door.config
        new = str(own[door.config])
        asks = bool(door.steps(new))
        found.append(Member(name, repository / name, own, new, _text(config) if config.is_file() else None, asks))
    return sorted(found, key=lambda each: (each.asks, each.name))


def check_fits(members: Sequence[Member], stored: Stored, door: Repository) -> None:
    """Refuse what one configuration for all versions cannot serve.

    Raises:
        UsageError: it says which model, and in what the two differ.
    """
    artifact = stored.artifact
    for each in members:
        if each.old is not None and (different := door.differences(each.old, each.new)):
            raise UsageError(
                f"{each.folder} has one configuration for all versions, and {artifact.name}@{artifact.version} fits it "
                f"not: {'; '.join(different)}",
                f"the same options as there, another repository, or mlpack optimize … --name {artifact.name}-2",
            )


def check_stays_whole(members: Sequence[Member], version: int, door: Repository, activation: str) -> None:
    """Refuse to add what would ask for a version that is not served, or be served at once where nothing says what is.

    Raises:
        UsageError: `activation` is the command that makes it whole.
    """
    for each in members:
        if each.old is not None and not door.active(each.old):
            raise UsageError(
                f"{each.folder / door.config} names no version to serve: a server may take {version} at once",
                f"name those that are served now in it, or {activation}",
            )
    asking = [each.name for each in members if each.asks and each.old is None]
    lacking = [each.name for each in members if each.old is not None and version not in door.active(each.old)]
    if asking and lacking:
        raise UsageError(
            f"{asking[0]} is new there and would ask version {version} of {', '.join(lacking)}, which is not served",
            activation,
        )


def check_nobody_else_asks(members: Sequence[Member], version: int, repository: Path, door: Repository) -> None:
    """Refuse to stop serving a version that another model in the repository asks by its number.

    Raises:
        UsageError: it says which one.
    """
    names = {each.name for each in members}
    for config in sorted(repository.glob(f"*/{door.config}")):
        if config.parent.name in names:
            continue
        # A model of somebody else's may be written in any way.
        for model, asked in door.steps(config.read_text(encoding="utf-8", errors="replace")):
            if model in names and asked not in {version, -1}:
                raise UsageError(
                    f"{config.parent.name} asks version {asked} of {model}, which would not be served any more",
                    f"remove {config.parent}, or let it ask another version, in {config}",
                )


def place(stored: Stored, repository: Path, members: Sequence[Member]) -> bool:
    """Add what is not there yet, who asks after those who are asked; whether anything was."""
    added = []
    for each in members:
        prefix = f"{stored.artifact.version}/"
        version = {relative: content for relative, content in each.files.items() if relative.startswith(prefix)}
        whole = each.old is None
        added.append(add(stored, each.folder, repository, each.files if whole else version, whole=whole))
    return any(added)


def activate(members: Sequence[Member], version: int, door: Repository) -> bool:
    """Serve this version by the models that are there; whether the old one still is, for who may yet ask it."""
    asking = [each.old for each in members if each.asks and each.old is not None]
    changes_over = any(door.active(old) != (version,) for old in asking)
    for each in members:
        if each.old is None:
            continue
        served = {version}
        if changes_over and not each.asks:
            served |= {
                *door.active(each.old),
                *(at for old in asking for name, at in door.steps(old) if name == each.name),
            }
        text = door.activated(each.old, tuple(sorted(served - {-1})))
        if text != each.old:
            write_atomic(each.folder / door.config, text)
    return changes_over


def _text(config: Path) -> str:
    try:
        return config.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{config} is no text: {error.reason}", "mend it, or take another repository") from error
