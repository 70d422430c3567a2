"""The pipeline of a run: what flags and a Hugging Face folder say of what comes before and after a model."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlpack.api.pipeline_draft import SCHEMA, Draft
from mlpack.core.dataset import RawOptions
from mlpack.datasets import raw_kind
from mlpack.errors import DataError, ModelError, UsageError

if TYPE_CHECKING:
    from mlpack.core.recipe import DataSpec, Recipe, SourceSpec

_MEDIA = {"table_file": "text", "image_folder": "image"}
_USUAL_INPUTS = ("input_ids", "attention_mask")


def draft_of(recipe: Recipe) -> Draft | None:
    """What the recipe says of before and after its model; None where it says nothing of either.

    Raises:
        DataError: a tokenizer, preset or function that cannot be used, or one that the data needs and nobody named.
        UsageError: flags that do not go together.
    """
    from mlpack.api.presets import image_options, python_options

    data = recipe.data
    given = (data.evaluation, data.calibration)
    kinds = {kind for path in given if path is not None and (kind := raw_kind(path)) is not None}
    draft = _of_folder(recipe.source, needed=bool(kinds) and data.tokenizer is None and data.preprocess is None)
    if data.tokenizer is not None and data.preprocess is not None:
        raise UsageError("--tokenizer and --preprocess both say what comes before the model", "give one of them")
    if data.tokenizer is not None:
        options, files = text_options(Path(data.tokenizer).expanduser(), recipe.source)
        draft.document["preprocess"] = options
        draft.files |= files
    elif data.preprocess is not None and _is_function(data.preprocess):
        options, files = python_options(data.preprocess, data)
        draft.document["preprocess"] = {"kind": "python", **options}
        draft.files |= files
    elif data.preprocess is not None:
        draft.document["preprocess"] = {"kind": "image", **image_options(data.preprocess)}
    _check_media(draft.document.get("preprocess"), kinds, data)
    _look_at_data(draft, data)
    _say_after(draft, data)
    return None if draft.says_nothing else draft


def _check_media(before: dict[str, Any] | None, kinds: set[str], data: DataSpec) -> None:
    """Texts need what takes texts, images what takes images."""
    from mlpack.datasets import RAW_KINDS, RAW_NEEDS

    takes = None if before is None else before.get("media", before["kind"])
    for kind in sorted(kinds):
        if takes != _MEDIA[kind]:
            named = data.preprocess or data.tokenizer or "what comes with the model"
            told = f", but {named} prepares {takes}s" if takes else ""
            raise DataError(f"{data.evaluation or data.calibration} holds {RAW_KINDS[kind]}{told}", RAW_NEEDS[kind])


def raw_options(draft: Draft | None, data: DataSpec, cache: Path) -> RawOptions | None:
    """How raw data is read with this pipeline."""
    if draft is None or draft.document.get("preprocess") is None:
        return None
    return RawOptions(pipeline=str(draft.write(cache)), columns=columns_of(data.columns), skip_bad=data.skip_bad or 0)


def columns_of(text: str | None) -> dict[str, str]:
    """`text=review,label=stars` as a mapping.

    Raises:
        UsageError: it is not of that form.
    """
    found = {}
    for piece in (text or "").split(","):
        if not piece.strip():
            continue
        name, equals, column = piece.partition("=")
        if not equals or not name.strip() or not column.strip():
            raise UsageError(f"--columns {text!r} is not name=column", "--columns text=review,label=stars")
        found[name.strip()] = column.strip()
    return found


def text_options(place: Path, source: SourceSpec) -> tuple[dict[str, Any], dict[str, Path]]:
    """The text step for a folder with a tokenizer.json (or that file itself), and the file to carry.

    Raises:
        DataError: there is none.
    """
    from mlpack.sources.hf_folder import CONFIG, read_config, usual_inputs
    from mlpack.sources.hf_pipeline import TOKENIZER, text_step
    from mlpack.sources.input_spec import parse_inputs

    file = place / TOKENIZER if place.is_dir() else place
    if not file.is_file() or file.suffix != ".json":
        raise DataError(
            f"there is no {TOKENIZER} at {place}",
            "tokenizer.save_pretrained(FOLDER) of a fast tokenizer writes it; give that folder",
        )
    folder = Path(source.model).expanduser()
    config = read_config(folder, source.model) if (folder / CONFIG).is_file() else {}
    given = source.inputs or usual_inputs(config)
    try:
        step = text_step(file.parent, config, file, tuple(spec.name for spec in parse_inputs(given)) or _USUAL_INPUTS)
    except ModelError as error:
        raise DataError(error.message, error.hint or "") from error
    if not step["inputs"]:
        raise DataError(
            "no input of the model takes what a tokenizer gives", "name them: --input input_ids=int64:batch,length"
        )
    return step, {TOKENIZER: file}


def _of_folder(source: SourceSpec, *, needed: bool) -> Draft:
    """What a Hugging Face folder brings along; where it is not needed, nothing of what a pipeline cannot do."""
    folder = Path(source.model).expanduser()
    if not (folder / "config.json").is_file():
        return Draft()
    from mlpack.sources.hf_pipeline import pipeline_of, without_before

    work = tempfile.TemporaryDirectory(prefix="mlpack-")
    try:
        document, files = pipeline_of(folder, Path(work.name))
    except ModelError:
        if needed:
            raise
        return Draft({"schema": SCHEMA, **without_before(folder)})
    return Draft({"schema": SCHEMA, **document}, dict(files), work)


def _look_at_data(draft: Draft, data: DataSpec) -> None:
    """What the data says of the pipeline: the names of the classes, where the model's folder has none, and pairs."""
    before, after = draft.document.get("preprocess"), draft.document.get("postprocess") or {}
    names: tuple[str, ...] = _given_labels(data.labels) or tuple(after.get("labels") or ())
    kind = None if data.evaluation is None else raw_kind(data.evaluation)
    if kind == "image_folder":
        from mlpack.datasets.image_folder import class_names

        names = names or class_names(Path(str(data.evaluation)).expanduser())
    elif kind == "table_file" and before is not None:
        from mlpack.datasets.table_file import look

        found = look(Path(str(data.evaluation)).expanduser(), columns_of(data.columns), before.get("fields"))
        names = names or found.classes
        before["fields"] = list(found.fields)
    if before is not None and data.max_length is not None:
        if before["kind"] != "text":
            raise UsageError("--max-length is for texts", "leave it out")
        before["max_length"] = data.max_length
    if names:
        draft.document["labels"] = list(names)


def _given_labels(text: str | None) -> tuple[str, ...]:
    """`no,yes`, or a file with a name on each line.

    Raises:
        UsageError: a name comes twice.
    """
    if text is None:
        return ()
    path = Path(text).expanduser()
    pieces = path.read_text(encoding="utf-8").splitlines() if path.is_file() else text.split(",")
    names = tuple(piece.strip() for piece in pieces if piece.strip())
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"--labels {text} names {twice!r} twice", "--labels no,yes")
    if not names:
        raise UsageError(f"--labels {text!r} names nothing", "--labels no,yes")
    return names


def _say_after(draft: Draft, data: DataSpec) -> None:
    if data.postprocess is None:
        return
    from mlpack.api.presets import postprocess_options

    after, files = postprocess_options(data.postprocess)
    draft.document["postprocess"] = {"kind": "python", **after}
    draft.files |= files


def _is_function(text: str) -> bool:
    place, colon, function = text.rpartition(":")
    return bool(colon) and place.endswith(".py") and function.isidentifier()
