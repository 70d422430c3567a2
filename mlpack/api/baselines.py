"""What a gate compares with: an artifact, or a baseline file that was written from one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from mlpack.api.diff import made
from mlpack.api.lookup import artifact
from mlpack.core.arrays import load_arrays
from mlpack.core.baseline import SCHEMA, Baseline, pack
from mlpack.core.filesystem import write_atomic
from mlpack.errors import DataError, Tampered, UsageError

if TYPE_CHECKING:
    import numpy as np

    from mlpack.api.diff import Facts
    from mlpack.core.artifact import Stored

ORIGINAL = "accuracy-baseline"
OPTIMIZED = "accuracy-optimized"


@dataclass(frozen=True, eq=False)
class Scored:
    """Per-sample results: `kept` as the metric keeps them, of rows with the fingerprint `part`.

    `code` is the digest of the file of a user's own metric.
    """

    label: str
    metric: str
    output: str | None
    part: str
    kept: dict[str, np.ndarray]
    code: str | None = None
    cluster: np.ndarray | None = None
    group: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Against:
    """The baseline of a gate. `stored` is its artifact; None where only a file of its results is at hand.

    `made` is how it was made, as `diff` tells it; empty where the file does not say.
    """

    label: str
    scored: Scored
    size_bytes: int
    stored: Stored | None
    made: Facts


def scored(stored: Stored, whose: str) -> Scored:
    """What was kept when this artifact was confirmed: its own results, or those of its original.

    Raises:
        DataError: it has no results on data, or they are of a version that kept no fingerprint of its rows.
        Tampered: the results are missing.
    """
    this = stored.artifact
    label = f"{this.name}@{this.version}"
    if this.accuracy.verdict == "none" and this.accuracy.verified_on == "synthetic":
        raise DataError(f"{label} was never judged on data", "optimize it with --data, and gate that version")
    if this.accuracy.part is None:
        raise DataError(f"{label} does not say which rows it was judged on", "optimize it again with this mlpack")
    file = stored.path / "reports" / f"{whose}-kept.npz"
    if not file.is_file():
        raise Tampered(f"{file} is missing", f"mlpack verify {label}")
    return of_arrays(label, this.accuracy.metric, *judged_by(stored), this.accuracy.part, load_arrays(file))


def judged_by(stored: Stored) -> tuple[str | None, str | None]:
    """The output that an artifact was judged by, and the digest of the metric's file where that is a user's own."""
    recipe = stored.artifact.recipe
    code = recipe.get("accuracy", {}).get("check_accuracy", {}).get("metric_sha256")
    return recipe.get("data", {}).get("output"), code


def of_arrays(
    label: str, metric: str, output: str | None, code: str | None, part: str, arrays: dict[str, np.ndarray]
) -> Scored:
    """The results in what `check_accuracy` wrote."""
    kept = {name.removeprefix("kept/"): array for name, array in arrays.items() if name.startswith("kept/")}
    return Scored(label, metric, output, part, kept, code, arrays.get("cluster"), arrays.get("group"))


def baseline_of(stored: Stored) -> Baseline:
    """The baseline file of an artifact.

    Raises:
        DataError, Tampered: as `scored`.
    """
    this = stored.artifact
    found = scored(stored, OPTIMIZED)
    return Baseline(
        mlpack_baseline=SCHEMA,
        name=this.name,
        version=this.version,
        digest=this.digest,
        metric=found.metric,
        output=found.output,
        metric_sha256=found.code,
        part=found.part,
        value=this.accuracy.optimized,
        size_bytes=this.model.size_bytes,
        made=_by_part(made(this)),
        kept=pack(found.kept),
    )


def _by_part(facts: Facts) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for (part, what), value in facts.items():
        found.setdefault(part, {})[what] = value
    return found


def write_baseline(stored: Stored, path: Path) -> None:
    """Write the baseline file of an artifact: a few kilobytes to commit to git.

    Raises:
        DataError, Tampered: as `scored`.
        MachineError: it cannot be written there.
    """
    text = baseline_of(stored).model_dump_json(by_alias=True, indent=1)
    write_atomic(path, (text + "\n").encode())


def against(word: str, store: str | Path | None) -> Against:
    """The baseline that a word means: a file where one lies there, else an artifact.

    Raises:
        UsageError: nothing is there, or the file is no baseline.
        DataError, Tampered: as `scored`.
    """
    path = Path(word).expanduser()
    if path.is_file() and path.name != "artifact.json":
        return _of_file(path)
    stored = artifact(word, store)
    this = stored.artifact
    return Against(f"{this.name}@{this.version}", scored(stored, OPTIMIZED), this.model.size_bytes, stored, made(this))


def _of_file(path: Path) -> Against:
    rewrite = f"write it anew: mlpack gate REF --write-baseline {path}"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no baseline: it is not JSON", rewrite) from error
    schema = content.get("mlpack_baseline") if isinstance(content, dict) else None
    if isinstance(schema, int) and schema > SCHEMA:
        raise UsageError(f"{path} is of a later mlpack (baseline schema {schema})", "update mlpack-toolchain")
    try:
        found = Baseline.model_validate(content)
        kept = found.arrays()
    except (ValidationError, ValueError, TypeError) as error:
        raise UsageError(f"{path} is no baseline, or is damaged", rewrite) from error
    label = f"{found.name}@{found.version} ({path.name})"
    results = Scored(label, found.metric, found.output, found.part, kept, found.metric_sha256)
    told = {(part, what): value for part, values in found.made.items() for what, value in values.items()}
    return Against(label, results, found.size_bytes, None, told)
