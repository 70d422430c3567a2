"""The server of a package in its own image, for `mlpack check --container`."""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mlpack.containers import engine_here
from mlpack.runtimes.server_process import free_ports, running

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from mlpack.core.runtime import Running, Runtime


@contextmanager
def serve(folder: Path, record: Mapping[str, Any], runtime: Runtime, log: Path) -> Iterator[Running]:
    """The image that the package's record names, or one that is built now; hardened, on this machine's loopback.

    Raises:
        MissingLibrary: no engine that runs containers works here.
        StageFailed: the image cannot be built, or its server did not get ready.
    """
    engine = engine_here("run")
    recorded = record.get("image", {})
    reference = recorded.get("reference", f"mlpack-check-{record['name']}:{record['version']}")
    if "digest" not in recorded or engine.digest(reference) != recorded["digest"]:
        engine.build(folder, reference)
    name = f"mlpack-check-{secrets.token_hex(4)}"
    here = free_ports(tuple(runtime.ports), None)
    published = {here[protocol]: port for protocol, port in runtime.ports.items()}
    command = engine.command(reference, name, published)
    notes = (f"in a container of {engine.name}: read-only, without capabilities",)
    try:
        with running(command, folder, os.environ, here, log, notes) as server:
            yield server
    finally:
        engine.remove(name)
