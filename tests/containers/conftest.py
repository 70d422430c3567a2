"""Container engines set up to work without a daemon, with storage of their own, on a base made of Debian's packages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "runtimes"))

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


@pytest.fixture(scope="session")
def engines(tmp_path_factory):
    """The environment in which podman and buildah work here, the base image in their storage."""
    lacking = [name for name in TOOLS if shutil.which(name) is None]
    if lacking or os.geteuid() != 0:
        pytest.skip(f"needs root and {', '.join(lacking) or 'nothing else'}: see ci/debian.txt")
    folder = tmp_path_factory.mktemp("containers")
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
    yield environment
    subprocess.run(["podman", "system", "reset", "--force"], check=False, env=every, capture_output=True, timeout=300)
