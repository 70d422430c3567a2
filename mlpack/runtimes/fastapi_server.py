"""Starts the fastapi package's own server, as it lies in the package, with a Python that has what it runs on."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mlpack.errors import MissingLibrary, UsageError
from mlpack.runtimes.server_process import HOST, free_ports, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlpack.core.runtime import Running, ServeOptions

_INSTALLED = """
import json, sys
from importlib import metadata
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        found[name] = None
print(json.dumps(found))
"""


@contextmanager
def serve(folder: Path, options: ServeOptions, log: Path) -> Iterator[Running]:
    """`python -m server` of the package, by the Python that runs mlpack or by another one.

    Raises:
        UsageError: a program is named, or the Python cannot be run.
        MissingLibrary: that Python lacks what the package's requirements name.
        MachineError, StageFailed: as `running`.
    """
    if options.server is not None:
        raise UsageError("a fastapi package brings its server along", "--python PATH says which Python runs it")
    python = str(options.python or sys.executable)
    notes = (*_other_versions(python, folder), *_kept_answers(folder))
    ports = free_ports(("http",), options.port)
    # What the environment says to Python is for mlpack; nothing of it may reach what the package has to prove.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment = {**kept, "HOST": HOST, "PORT": str(ports["http"])}
    # -B: a package has the files that it was made with, and no others.
    command = [python, "-B", "-m", "server"]
    with running(command, folder, environment, ports, log, notes) as server:
        yield server


def _kept_answers(folder: Path) -> tuple[str, ...]:
    """A note where requests that come again are not run again: who asks the same few is told the cache's times."""
    kept = json.loads((folder / "model.json").read_text(encoding="utf-8")).get("cache")
    return (f"answers are kept ({kept['store']}): times are mostly those of kept answers",) if kept else ()


def _other_versions(python: str, folder: Path) -> tuple[str, ...]:
    """A note where this Python has other versions than the package pins."""
    text = (folder / "requirements.txt").read_text(encoding="utf-8")
    pins = dict(line.split("==") for line in text.split() if "==" in line)
    command = [python, "-c", _INSTALLED, *pins]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
        found: dict[str, str | None] = json.loads(told.stdout)
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        raise UsageError(f"{python} is no Python that can be run: {error}", "--python ENV/bin/python") from error
    if missing := [name for name, version in found.items() if version is None]:
        environment = shlex.quote(f"{folder.name}-python")
        requirements = shlex.quote(str(folder / "requirements.txt"))
        raise MissingLibrary(
            f"{python} lacks {', '.join(missing)}, which the package's server runs on",
            f"python3 -m venv {environment} && {environment}/bin/pip install -r {requirements}, "
            f"then --python {environment}/bin/python",
        )
    # A local version (1.2+cpu) names a build, and pins leave it out.
    here = {name: (version or "").partition("+")[0] for name, version in found.items()}
    others = [f"{name} {here[name]} (pinned: {pin})" for name, pin in pins.items() if here[name] != pin]
    return (f"other versions than the package pins: {', '.join(others)}",) if others else ()
