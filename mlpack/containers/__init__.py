"""Container engines: one file per program. This table is the only place that lists them, the likeliest first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from mlpack.core.table import Table
from mlpack.errors import MissingLibrary

if TYPE_CHECKING:
    from mlpack.containers.engine import Engine
ENGINES: Table[Engine] = Table(
    "container engine",
    {
        "docker": "mlpack.containers.docker:ENGINE",
        "podman": "mlpack.containers.podman:ENGINE",
        "buildah": "mlpack.containers.buildah:ENGINE",
    },
)


def engine_here(purpose: Literal["build", "run"] = "build") -> Engine:
    """The first engine that works on this machine and does what is wanted.

    Raises:
        MissingLibrary: there is none; the message says what each of them answered.
    """
    refusals = []
    for name in ENGINES.names():
        engine = ENGINES[name]
        refusal = "runs nothing" if purpose == "run" and engine.run_words is None else engine.refusal()
        if refusal is None:
            return engine
        refusals.append(f"{name} {refusal}")
    raise MissingLibrary(f"no container engine works here: {'; '.join(refusals)}", "apt-get install podman")
