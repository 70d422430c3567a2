"""The raw side of an artifact: its pipeline's files, what raw samples have, and what answers to them look like."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import mlpack.pipeline
from mlpack.core.words import Frozen
from mlpack.errors import Tampered
from mlpack.pipeline import FILE, PipelineError, datatypes, read_document

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlpack.core.artifact import Stored

_FOLDER = "pipeline"
_RAW, _ANSWERS = "golden/raw.jsonl", "golden/answers.jsonl"
_LABEL_COLUMNS = ("label", "score")
# Numbers of an answer are made of several outputs' numbers, by a function that is not known here.
_ANSWER_RELATIVE = 1e-3


class RawSide(Frozen):
    """`fields` is empty where nothing comes before the model, `columns` (datatypes by name) where nothing after it.

    `samples`: whether golden raw samples are there, with answers where `answers`.
    """

    fields: tuple[str, ...]
    media: Literal["text", "image"]
    columns: dict[str, str]
    libraries: tuple[str, ...]
    samples: bool
    answers: bool

    @property
    def example(self) -> str:
        """A raw sample in JSON, for a README; in quotes that a shell leaves alone."""
        what = "BASE64" if self.media == "image" else "text"
        return json.dumps({name: f"another {what}" if at else f"some {what}" for at, name in enumerate(self.fields)})

    def example_request(self, shape: list[int]) -> str:
        """A request of the V2 protocol with one raw sample of texts."""
        samples: dict[str, str] = json.loads(self.example)
        tensors = [
            {"name": name, "datatype": "BYTES", "shape": shape, "data": [each]} for name, each in samples.items()
        ]
        return json.dumps({"inputs": tensors})

    @property
    def shown_columns(self) -> str:
        """The columns of an answer in a sentence."""
        return ", ".join(f"`{name}` ({datatype})" for name, datatype in self.columns.items())


def raw_side(stored: Stored) -> RawSide | None:
    """What `pipeline/pipeline.yaml` says; None where the artifact has none. Runs none of the pipeline's code.

    Raises:
        Tampered: a file that the artifact lists is missing or damaged.
    """
    listed = stored.artifact.files
    if f"{_FOLDER}/{FILE}" not in listed:
        return None
    try:
        document = read_document(stored.path / _FOLDER / FILE)
        answers = _lines(stored.path / _ANSWERS) if _ANSWERS in listed else []
    except (PipelineError, OSError, ValueError) as error:
        named = f"{stored.artifact.name}@{stored.artifact.version}"
        raise Tampered(f"the pipeline of {named} cannot be read: {error}", f"mlpack verify {named}") from error
    before: Mapping[str, Any] = document.get("preprocess") or {}
    after: Mapping[str, Any] = document.get("postprocess") or {}
    kind = before.get("kind")
    image = kind == "image" or before.get("media") == "image"
    fields = () if kind is None else ("image",) if kind == "image" else tuple(before.get("fields") or ("text",))
    needed = {"pyyaml": True, "tokenizers": kind == "text", "pillow": image}
    return RawSide(
        fields=fields,
        media="image" if image else "text",
        columns=datatypes(_columns(after, answers), answers),
        libraries=tuple(name for name, is_needed in needed.items() if is_needed),
        samples=bool(fields) and _RAW in listed,
        answers=bool(answers),
    )


def pipeline_files(stored: Stored, code: str, data: str) -> dict[str, Path]:
    """The pipeline's code and the artifact's own files for it, by their place in a package."""
    here = Path(mlpack.pipeline.__file__).parent
    own = [relative for relative in sorted(stored.artifact.files) if relative.startswith(f"{_FOLDER}/")]
    return {
        **{f"{code}/{path.name}": path for path in sorted(here.glob("*.py"))},
        **{f"{data}/{relative.removeprefix(f'{_FOLDER}/')}": stored.path / relative for relative in own},
    }


def golden_files(stored: Stored, raw: RawSide | None) -> dict[str, Path]:
    """Golden raw samples and their answers, as far as they are there."""
    if raw is None or not raw.samples:
        return {}
    return {name: stored.path / name for name in (_RAW, *([_ANSWERS] if raw.answers else []))}


def golden_record(stored: Stored, raw: RawSide, served_as: str) -> dict[str, Any]:
    """What `golden.json` says of raw samples; `served_as` is the model's name to those who send them."""
    artifact = stored.artifact
    tolerances = artifact.golden["tolerance"].values()
    return {
        "model": served_as,
        "fields": list(raw.fields),
        "media": raw.media,
        # A column hides an output of the same name from raw requests.
        "outputs": [spec.name for spec in artifact.model.outputs if spec.name not in raw.columns],
        "columns": raw.columns if raw.answers else {},
        "tolerance": {
            "absolute": max(each["absolute"] for each in tolerances),
            "relative": max(_ANSWER_RELATIVE, *(each["relative"] for each in tolerances)),
        },
    }


def _columns(after: Mapping[str, Any], answers: list[dict[str, Any]]) -> tuple[str, ...]:
    if not after:
        return ()
    if answers:
        return tuple(answers[0])
    return tuple(after.get("columns") or _LABEL_COLUMNS)


def _lines(path: Path) -> list[dict[str, Any]]:
    # Not splitlines(): a text may have line ends of other scripts in it.
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
