"""The engine of a Triton package for a card: what builds it at the first start, and the config that serves it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlpack.backends.tensorrt_plan import spans_of
from mlpack.runtimes.package_files import TEMPLATES, json_text

if TYPE_CHECKING:
    from pathlib import Path

    from mlpack.core.artifact import Artifact

FOLDER = "engine"


def engine_files(artifact: Artifact, most: int, config: str) -> dict[str, str | bytes | Path]:
    """The first start, the recipe that it builds by, and the `config.pbtxt` of the engine, by relative path.

    The engine has one optimization profile, for batches of 1 to `most` rows and fastest there. Where a size is not
    known there is none, and the recipe says what is lacking.
    """
    lacks = lacking(artifact)
    recipe = {
        "schema": 1,
        "artifact": artifact.digest,
        "model": artifact.name,
        "version": str(artifact.version),
        "graph": artifact.model.entry,
        "profile": _profile(artifact, most) if lacks is None else None,
        "lacks": lacks,
    }
    return {
        f"{FOLDER}/start.py": TEMPLATES / "triton" / "start.py",
        f"{FOLDER}/recipe.json": json_text(recipe),
        f"{FOLDER}/config.pbtxt": config,
    }


def lacking(artifact: Artifact) -> str | None:
    """Why no engine can be built, or None: an engine is for sizes up to a largest one."""
    for spec in artifact.model.inputs:
        for span in spans_of(spec, (1, 1, 1), artifact.model.largest):
            if isinstance(span, str):
                return f"input {spec} has a free dim {span!r} of which no largest size is known"
    return None


def _profile(artifact: Artifact, most: int) -> dict[str, list[list[int]]]:
    """The smallest, the usual and the largest shape of each input."""
    shapes = {}
    for spec in artifact.model.inputs:
        spans = spans_of(spec, (1, most, most), artifact.model.largest)
        shapes[spec.name] = [[span[at] for span in spans if not isinstance(span, str)] for at in range(3)]
    return shapes
