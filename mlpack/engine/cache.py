"""Finished stages, kept under what went into them. A folder that exists is complete."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlpack.core.artifact import canonical
from mlpack.core.model import Model
from mlpack.core.report import Report
from mlpack.core.words import Frozen
from mlpack.stages import STAGES

if TYPE_CHECKING:
    from mlpack.core.stage import Stage
    from mlpack.engine.context import Context


class Done(Frozen):
    """A finished stage: its model, its report, the ingredients of its key, and what it cost."""

    stage: str
    options: dict[str, Any]
    key: str
    ingredients: dict[str, Any]
    model: Model
    report: Report
    folder: Path
    seconds: float
    peak_rss_bytes: int
    reused: bool

    def file(self, name: str) -> Path:
        """Where one of the report's files lies."""
        return self.folder / "out" / name


def ingredients(
    name: str, stage: Stage, model: Model | None, context: Context, rivals: dict[str, Model]
) -> dict[str, Any]:
    """All that the result depends on, by name: what the key is a hash of and what `explain` compares."""
    return {
        "stage": name,
        "revision": _revision(name),
        "options": stage.keyed(),
        "model": model.fingerprint() if model else None,
        "data": {part: context.part_fingerprint(part) for part in stage.reads()},
        "baseline": context.baseline.fingerprint() if stage.keyed_by_baseline and context.baseline else None,
        "target": context.target.model_dump(mode="json") if stage.keyed_by_target else None,
        "threads": context.threads if stage.counts_threads() else None,
        "seed": context.seed,
        "rivals": {label: rival.fingerprint() for label, rival in rivals.items()},
        "libraries": {library: _version(library) for library in stage.needs()},
    }


def key_of(content: dict[str, Any]) -> str:
    """The cache key of these ingredients."""
    return hashlib.sha256(canonical(content)).hexdigest()


def find(folder: Path) -> Done | None:
    """The finished stage in this folder, or None."""
    record = folder / "stage.json"
    if not record.exists():
        return None
    content = json.loads(record.read_text())
    content["model"]["path"] = str(_resolve(folder, content["model"]["path"]))
    done = Done.model_validate({**content, "folder": folder, "reused": True})
    return done if done.model.entry_path.exists() else None


def record(done: Done, folder: Path) -> str:
    """`stage.json`: the path of a model that the stage made is kept relative to the folder."""
    content = done.model_dump(mode="json", exclude={"folder", "reused"})
    made_here = done.model.path == folder / "out"
    content["model"]["path"] = "out" if made_here else str(done.model.path)
    return json.dumps(content, indent=1)


def _resolve(folder: Path, path: str) -> Path:
    return folder / path


@cache
def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


@cache
def _revision(name: str) -> str:
    """Hash of the stage's own file and of the code that it names as its numerics: no number to raise by hand."""
    stage = STAGES[name]
    digest = hashlib.sha256()
    for module in (stage.__module__, *stage.code):
        spec = importlib.util.find_spec(module)
        assert spec is not None, module
        assert spec.origin is not None, module
        origin = Path(spec.origin)
        sources = sorted(origin.parent.glob("*.py")) if origin.name == "__init__.py" else [origin]
        for source in sources:
            digest.update(source.read_bytes())
    return digest.hexdigest()[:16]
