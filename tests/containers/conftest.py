"""Container engines for the tests of images."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "runtimes"))
# Last: it has a `serving` too.
sys.path.append(str(ROOT / "benchmarks"))


@pytest.fixture(scope="session")
def engines(tmp_path_factory):
    """The environment in which podman and buildah work here, the base image in their storage."""
    import container_engines

    if why := container_engines.lacking():
        pytest.skip(why)
    with container_engines.engines(tmp_path_factory.mktemp("containers")) as environment:
        yield environment
