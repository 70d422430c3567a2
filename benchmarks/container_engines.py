"""Container engines as root, without a daemon, with storage of their own, on a base made of Debian's packages."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOOLS = ("buildah", "podman", "runc", "mmdebstrap")
BASE = "docker.io/library/python:3.11-slim"
AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
# What python:3.11-slim has: pip that installs into the system, and `python`.
INCLUDED = "ca-certificates,python-is-python3,python3-pip"
CONTAINERS = """
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
volumes = [{volumes}]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
[network]
network_backend = "netavark"
"""


def lacking() -> str:
    """What is not here of what `engines` needs; empty: all is."""
    tools = [name for name in TOOLS if shutil.which(name) is None]
    if tools or os.geteuid() != 0:
        return f"needs root and {', '.join(tools) or 'nothing else'}: see ci/debian.txt"
    return ""


@contextmanager
def engines(folder: Path) -> Iterator[dict[str, str]]:
    """The environment in which podman and buildah work here, the base image in their storage in this folder."""
    # In the image pip asks as it does here: the same authorities.
    (folder / "pip.conf").write_text(f"[global]\ncert = {AUTHORITIES}\n")
    volumes = f'"{AUTHORITIES}:{AUTHORITIES}:ro", "{folder}/pip.conf:/etc/pip.conf:ro"'
    (folder / "containers.conf").write_text(CONTAINERS.format(volumes=volumes))
    (folder / "storage.conf").write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/images"\nrunroot = "{folder}/run"\n'
    )
    environment = {
        "CONTAINERS_CONF": str(folder / "containers.conf"),
        "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
        "BUILDAH_ISOLATION": "chroot",
    }
    base = folder / "base.tar"
    hook = 'rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED'
    words = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={INCLUDED}", f"--customize-hook={hook}"]
    subprocess.run([*words, "bookworm", base], check=True, timeout=600)
    every = {**os.environ, **environment}
    subprocess.run(["podman", "import", "--quiet", base, BASE], check=True, env=every, timeout=300)
    base.unlink()
    try:
        yield environment
    finally:
        subprocess.run(
            ["podman", "system", "reset", "--force"], check=False, env=every, capture_output=True, timeout=300
        )
