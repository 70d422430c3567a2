"""A pipeline in the making: written under its content's digest, fitted to the loaded model, recorded, tried."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlpack.core.arrays import load_arrays
from mlpack.core.artifact import PipelineRecord
from mlpack.core.dataset import from_json
from mlpack.core.filesystem import refused_by_machine, remove, temporary_sibling
from mlpack.core.model import sha256_of
from mlpack.errors import DataError
from mlpack.pipeline import FILE, Pipeline, PipelineError

if TYPE_CHECKING:
    from mlpack.core.model import Model, TensorSpec

SCHEMA = 1


@dataclass
class Draft:
    """A `pipeline.yaml` in the making, and the files that go beside it."""

    document: dict[str, Any] = field(default_factory=lambda: {"schema": SCHEMA})
    files: dict[str, Path] = field(default_factory=dict)
    # Where files lie that were made for it; they go when the draft goes.
    work: tempfile.TemporaryDirectory[str] | None = None

    @classmethod
    def read(cls, folder: Path) -> Draft:
        """The draft of a pipeline that was written, to be written again."""
        import yaml

        document = yaml.safe_load((folder / FILE).read_text(encoding="utf-8"))
        return cls(document, {path.name: path for path in sorted(folder.iterdir()) if path.name != FILE})

    @property
    def says_nothing(self) -> bool:
        """Whether there is neither a before nor an after."""
        return not self.document.get("preprocess") and not self.document.get("postprocess")

    def write(self, cache: Path) -> Path:
        """The pipeline's folder in the cache, under the digest of its content."""
        import yaml

        told = [self.document, {name: sha256_of(path) for name, path in self.files.items()}]
        digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
        place = cache / "pipelines" / digest
        if place.is_dir():
            return place
        with refused_by_machine(place):
            place.parent.mkdir(parents=True, exist_ok=True)
            folder = temporary_sibling(place)
            for name, path in self.files.items():
                shutil.copyfile(path, folder / name)
            (folder / FILE).write_text(yaml.safe_dump(self.document, sort_keys=False, allow_unicode=True))
            try:
                folder.rename(place)
            except OSError:
                # Another process has just made the same one.
                remove(folder)
        return place


def finished(draft: Draft, model: Model) -> Draft:
    """The pipeline with what only the loaded model tells: its inputs, and which output the labels name.

    An output [batch, classes] of floats is the one; where several are, nothing is said. A preprocess that does not give
    what the model takes is left out: the data was arrays, or it would have been refused.

    Raises:
        DataError: no output has as many columns as there are names.
    """
    before = draft.document.get("preprocess")
    before = before and _fitted(before, model)
    draft = replace(draft, document={**draft.document, "preprocess": before})
    labels = draft.document.get("labels")
    if draft.document.get("postprocess") is not None or not labels:
        return draft
    scores = [spec for spec in model.outputs if spec.dtype.startswith("float") and _is_table(spec)]
    fitting = [spec for spec in scores if spec.dims[1] == len(labels)]
    if scores and not fitting:
        raise DataError(
            f"there are names for {len(labels)} classes ({', '.join(labels[:3])}, …), but the model's output "
            f"{scores[0].name!r} has {scores[0].dims[1]}: which number has which name cannot be told",
            "name them all, in the order of their numbers: --labels no,yes or a file with one a line",
        )
    if len(fitting) != 1:
        return draft
    after = {"kind": "labels", "output": fitting[0].name, "labels": list(labels)}
    return replace(draft, document={**draft.document, "postprocess": after})


def _is_table(spec: TensorSpec) -> bool:
    """Whether an output is [batch, classes]; one column is a number, not a class."""
    return len(spec.dims) == 2 and isinstance(spec.dims[1], int) and spec.dims[1] > 1  # noqa: PLR2004 - two axes


def _fitted(before: dict[str, Any], model: Model) -> dict[str, Any] | None:
    """With the names of the model's inputs; a single array goes to a single input whatever its name."""
    names = [spec.name for spec in model.inputs]
    if before["kind"] == "image":
        return {**before, "input": names[0]} if len(names) == 1 else None
    given = before["inputs"]
    if len(names) == len(given) == 1:
        given = {names[0]: next(iter(given.values()))}
    if set(names) - set(given):
        return None
    made = {**before, "inputs": {name: given[name] for name in names}}
    lengths = {spec.dims[1] for spec in model.inputs if len(spec.dims) > 1}
    if before["kind"] == "text" and len(lengths) == 1 and isinstance(length := lengths.pop(), int):
        made["length"] = length
    return made


def pipeline_record(draft: Draft, cache: Path) -> PipelineRecord:
    """What artifact.json says of the pipeline.

    Raises:
        DataError: it does not hold together.
    """
    folder = draft.write(cache)
    try:
        fields = Pipeline.load(folder).fields
    except PipelineError as error:
        raise DataError(error.message, "look at the tokenizer, preset or function that was given") from error
    kinds = {side: (draft.document.get(side) or {}).get("kind") for side in ("preprocess", "postprocess")}
    labels = tuple(map(str, draft.document.get("labels") or ()))
    return PipelineRecord(path="pipeline", fields=fields, labels=labels, digest=folder.name, **kinds)


def golden_answers(pipeline: Path, golden: Path) -> str:
    """What comes after the model for the golden samples, a JSON object per line; empty where nothing does.

    Raises:
        DataError: the model's answers are not what the postprocess was made for.
    """
    made = Pipeline.load(pipeline)
    raw = golden / "raw.jsonl"
    if made.postprocess is None or not raw.is_file():
        return ""
    samples = [json.loads(line) for line in raw.read_text(encoding="utf-8").splitlines()]
    fields = {name: [from_json(sample[name]) for sample in samples] for name in samples[0]}
    try:
        columns = made.finish(load_arrays(golden / "outputs.npz"), fields)
    except PipelineError as error:
        raise DataError(
            f"what comes after the model: {error.message}", "give it its own: --postprocess file.py:function"
        ) from error
    rows = ({name: values[at] for name, values in columns.items()} for at in range(len(samples)))
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
