"""Pipeline: `pipeline.yaml` and the files beside it, read into what runs before and after a model."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from .faults import PipelineError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

FILE = "pipeline.yaml"
SCHEMA = 1
# What a `kind` is made by: a function of the document's part and the pipeline's folder, in a file of its own.
PREPROCESS = {"text": ".text:TextPreprocess", "image": ".image:ImagePreprocess", "python": ".python:PythonPreprocess"}
POSTPROCESS = {
    "labels": ".labels:LabelsPostprocess",
    "tags": ".tags:TagsPostprocess",
    "spans": ".spans:SpansPostprocess",
    "python": ".python:PythonPostprocess",
}
# These read what a model says of single tokens, and need the step that made the tokens to know which.
_OF_TOKENS = ("tags", "spans")


class Preprocess(Protocol):
    """Raw samples to the model's inputs.

    `fields` are the names of what a raw sample has, `media` what each of them is, `inputs` name, dtype and dims of
    what comes out, first dim the samples; a dim that is a name differs between batches.
    """

    fields: tuple[str, ...]
    media: str
    inputs: tuple[tuple[str, str, tuple[int | str, ...]], ...]

    def __call__(self, raw: Mapping[str, Sequence[Any]]) -> dict[str, np.ndarray]:
        """Arrays by input name. `raw` has a list per field, all of one length."""
        ...

    def lengths(self, raw: Mapping[str, Sequence[Any]]) -> np.ndarray | None:
        """How long each sample is where that differs (tokens; not cut), int64 [n]; None where all are of one size."""
        ...


class Postprocess(Protocol):
    """The model's outputs to what a person reads, as columns: `columns` are their names."""

    columns: tuple[str, ...]

    def __call__(self, outputs: Mapping[str, np.ndarray], raw: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        """A list per column, one entry per sample."""
        ...


class Pipeline:
    """What an artifact does before and after its model. Either side may be missing."""

    def __init__(self, document: Mapping[str, Any], folder: Path) -> None:
        """From what a `pipeline.yaml` says; `folder` is where its files lie.

        Raises:
            PipelineError: the document or one of its files cannot be used.
        """
        self.document = document
        self.preprocess: Preprocess | None = _made(document, "preprocess", PREPROCESS, folder)
        needed = {"preprocess": self.preprocess} if _kind(document, "postprocess") in _OF_TOKENS else {}
        self.postprocess: Postprocess | None = _made(document, "postprocess", POSTPROCESS, folder, needed)

    @classmethod
    def load(cls, folder: Path) -> Pipeline:
        """The pipeline in a folder.

        Raises:
            PipelineError: as above.
        """
        return cls(read_document(folder / FILE), folder)

    @property
    def fields(self) -> tuple[str, ...]:
        """What a raw sample has; empty where the model takes arrays alone."""
        return self.preprocess.fields if self.preprocess else ()

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes, in the order of their numbers; empty where nobody said."""
        return tuple(map(str, self.document.get("labels") or ()))

    def prepare(self, raw: Mapping[str, Sequence[Any]]) -> dict[str, np.ndarray]:
        """The model's inputs for raw samples.

        Raises:
            PipelineError: fields are missing, differ in length, or a sample cannot be taken.
        """
        if self.preprocess is None:
            raise PipelineError("this pipeline has nothing before the model: give arrays")
        missing = [name for name in self.fields if name not in raw]
        if missing:
            raise PipelineError(f"{missing[0]!r} is missing: a sample has {', '.join(self.fields)}")
        counts = {len(raw[name]) for name in self.fields}
        if len(counts) > 1:
            raise PipelineError(f"{', '.join(self.fields)} have different numbers of samples")
        if counts == {0}:
            raise PipelineError("there are no samples")
        return self.preprocess(raw)

    def finish(self, outputs: Mapping[str, np.ndarray], raw: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        """The model's outputs as columns for people; empty where the pipeline ends with the model.

        Raises:
            PipelineError: the outputs are not what the pipeline was made for.
        """
        return {} if self.postprocess is None else self.postprocess(outputs, raw)


def read_document(path: Path) -> dict[str, Any]:
    """What a `pipeline.yaml` says.

    Raises:
        PipelineError: not there, no YAML, or of another schema.
    """
    import yaml

    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PipelineError(f"{path} cannot be read: {error}") from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise PipelineError(f"{path} is no pipeline of schema {SCHEMA}")
    return document


def _kind(document: Mapping[str, Any], side: str) -> Any:
    part = document.get(side)
    return part.get("kind") if isinstance(part, dict) else None


def _made(
    document: Mapping[str, Any],
    side: str,
    kinds: Mapping[str, str],
    folder: Path,
    needed: Mapping[str, Any] | None = None,
) -> Any:
    part = document.get(side)
    if part is None:
        return None
    kind = _kind(document, side)
    if kind not in kinds:
        raise PipelineError(f"{side} is of no kind that is known: {', '.join(kinds)}")
    module, _, name = kinds[kind].partition(":")
    options = {key: value for key, value in part.items() if key != "kind"}
    try:
        return getattr(import_module(module, __package__), name)(folder, **options, **(needed or {}))
    except TypeError as error:
        raise PipelineError(f"{side}: {error}") from error
