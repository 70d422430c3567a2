"""Container engines: one file per program. This table is the only place that lists them, the likeliest first."""

from __future__ import annotations

from mlpack.containers.engine import Engine
from mlpack.core.table import Table
from mlpack.errors import MissingLibrary

ENGINES: Table[Engine] = Table(
    "container engine",
    {
        "docker": "mlpack.containers.docker:ENGINE",
        "podman": "mlpack.containers.podman:ENGINE",
        "buildah": "mlpack.containers.buildah:ENGINE",
    },
)


def engine_here() -> Engine:
    """The first engine that works on this machine.

    Raises:
        MissingLibrary: there is none; the message says what each of them answered.
    """
    refusals = []
    for name in ENGINES.names():
        refusal = ENGINES[name].refusal()
        if refusal is None:
            return ENGINES[name]
        refusals.append(f"{name} {refusal}")
    raise MissingLibrary(f"no container engine works here: {'; '.join(refusals)}", "apt-get install buildah")
