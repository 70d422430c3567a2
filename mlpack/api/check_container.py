"""The server of a package in its own image, for `mlpack check --container`, started as its compose.yaml says."""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import yaml

from mlpack.containers import ENGINES, engine_here
from mlpack.errors import MissingHardware, UsageError
from mlpack.runtimes.server_process import free_ports, running

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from mlpack.containers.engine import Engine
    from mlpack.core.runtime import Running, Runtime


@contextmanager
def serve(folder: Path, record: Mapping[str, Any], runtime: Runtime, log: Path) -> Iterator[Running]:
    """The image that the package's record names, or one that is built now; hardened, on this machine's loopback.

    Raises:
        UsageError: this runtime's server cannot be asked in its container, or a variable that it wants is not set.
        MissingHardware: the package is for a card.
        MissingLibrary: no engine that runs containers works here.
        StageFailed: the image cannot be built, or its server did not get ready.
    """
    if not runtime.ports:
        raise UsageError(f"{runtime.title} gives its tokens inside the container only", "leave --container out")
    flags = _flags(folder)
    engine, image, found = _image(folder, record)
    name = f"mlpack-check-{secrets.token_hex(4)}"
    here = free_ports(tuple(runtime.ports), None)
    published = {here[protocol]: port for protocol, port in runtime.ports.items()}
    command = engine.command(image, name, published, flags)
    notes = (f"in a container of {engine.name}: read-only, without capabilities", *found)
    try:
        with running(command, folder, os.environ, here, log, notes) as server:
            yield server
    finally:
        engine.remove(name)


def _flags(folder: Path) -> list[str]:
    """What compose.yaml gives the container beside ports and hardening."""
    (service,) = yaml.safe_load((folder / "compose.yaml").read_text(encoding="utf-8"))["services"].values()
    if "deploy" in service:
        raise MissingHardware("the package is for an NVIDIA card", "check it on the machine that will serve")
    wanted = service.get("environment", [])
    if missing := [name for name in wanted if name not in os.environ]:
        raise UsageError(f"the server wants {', '.join(missing)}, which is not set", f"export {missing[0]}=...")
    shared = ["--shm-size", service["shm_size"]] if "shm_size" in service else []
    return [*shared, *(word for name in wanted for word in ("--env", name))]


def _image(folder: Path, record: Mapping[str, Any]) -> tuple[Engine, str, tuple[str, ...]]:
    """The engine, what it calls the image, and a note where that is not the recorded one."""
    recorded: Mapping[str, str] = record.get("image", {})
    if recorded:
        engine = ENGINES[recorded["engine"]]
        is_here = engine.run_words is not None and engine.refusal() is None
        if is_here and engine.digest(recorded["reference"]) == recorded["digest"]:
            return engine, recorded["digest"].removeprefix("sha256:"), ()
    engine = engine_here("run")
    # Not by the package's own name, which may be in use.
    image = engine.build(folder, f"mlpack-check:{record['artifact_digest'][:12]}")
    note = ("the image that the package records is not here: this one was built now",) if recorded else ()
    return engine, image.digest.removeprefix("sha256:"), note
