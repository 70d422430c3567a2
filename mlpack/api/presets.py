"""What `--preprocess` can name: a preset for images, a file of options, or the user's own function."""

from __future__ import annotations

import difflib
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlpack.errors import DataError, UsageError

if TYPE_CHECKING:
    from mlpack.core.recipe import DataSpec

# The usual ways to prepare an image for a trained network; mean and std of 0..1 pixels.
PRESETS: dict[str, dict[str, Any]] = {
    "imagenet": {
        "resize": 256, "crop": [224, 224], "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
    },
    "inception": {"resize": [299, 299], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
    "clip": {
        "resize": 224, "crop": [224, 224], "resample": "bicubic",
        "mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711],
    },
    "unit": {"resize": [224, 224]},
    "gray": {"resize": [28, 28], "channels": "gray"},
}  # fmt: skip


def image_options(text: str) -> dict[str, Any]:
    """ImagePreprocess's options for a preset (`imagenet`, `imagenet:160`), or a file of them.

    `:SIZE` makes the preset's images SIZE high and wide, and scales the side that is cropped from in proportion. A
    file is YAML with these options, or a Hugging Face folder's preprocessor_config.json.

    Raises:
        UsageError: an unknown preset.
        DataError: a file that holds none.
    """
    path = Path(text).expanduser()
    if path.is_dir():
        path = path / "preprocessor_config.json"
    if path.is_file():
        return _of_file(path)
    name, _, size = text.partition(":")
    if name not in PRESETS or (size and not size.isdigit()) or size == "0":
        near = difflib.get_close_matches(name, PRESETS, n=1)
        raise UsageError(
            f"--preprocess {text} is no preset, and no file is there",
            f"did you mean {near[0]}?" if near else f"one of {', '.join(PRESETS)}; a YAML file, or file.py:function",
        )
    return _sized(PRESETS[name], int(size)) if size else dict(PRESETS[name])


def _sized(preset: dict[str, Any], size: int) -> dict[str, Any]:
    crop = preset.get("crop")
    made = dict(preset)
    if crop is None:
        made["resize"] = [size, size]
    else:
        made["resize"] = round(preset["resize"] * size / crop[0])
        made["crop"] = [size, size]
    return made


def _of_file(path: Path) -> dict[str, Any]:
    import yaml

    from mlpack.pipeline.image import ImagePreprocess

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{path} cannot be read as YAML: {str(error).splitlines()[0]}", f"correct {path}") from error
    if isinstance(content, dict) and {"image_processor_type", "feature_extractor_type", "do_normalize"} & set(content):
        from mlpack.sources.hf_images import image_step

        step = image_step(content, {}, path.parent)
        return {name: value for name, value in step.items() if name not in {"kind", "input"}}
    known = [name for name in inspect.signature(ImagePreprocess).parameters if name != "folder"]
    if not isinstance(content, dict) or set(content) - set(known):
        stranger = next(iter(set(content) - set(known))) if isinstance(content, dict) else "no mapping"
        raise DataError(f"{path} has {stranger!r}, which says nothing of an image", f"it may have {', '.join(known)}")
    return content


def python_options(reference: str, data: DataSpec) -> tuple[dict[str, Any], dict[str, Path]]:
    """PythonPreprocess's options for `file.py:function`, found by one call on the first sample, and the file to carry.

    Raises:
        DataError: the function cannot be called on a sample, or gives no arrays.
    """
    import numpy as np

    from mlpack.core.user_code import find_reference, load_function, running

    place, _, function = reference.rpartition(":")
    file, path = carried(place, "preprocess")
    found = find_reference(reference, "--preprocess", DataError)
    sample, fields, media = _first_sample(data)
    with running(found, f"preprocess function {reference!r}", DataError):
        given = load_function(found, "preprocess function", DataError)(sample)
    arrays = {str(k): np.asarray(v) for k, v in given.items()} if isinstance(given, dict) else {"x": np.asarray(given)}
    for name, array in arrays.items():
        if array.dtype.kind not in "fiub":
            raise DataError(
                f"preprocess function {reference!r} gave {name!r} with dtype {array.dtype}",
                "return a numpy array, or a dict of them by input name",
            )
    inputs = {name: [array.dtype.name, *array.shape] for name, array in arrays.items()}
    options = {"file": file, "function": function, "inputs": inputs, "fields": list(fields), "media": media}
    return options, {file: path}


def carried(place: str, role: str) -> tuple[str, Path]:
    """The name of a user's file in the pipeline's folder, and where it lies.

    Raises:
        DataError: it is not there.
    """
    path = Path(place).expanduser().absolute()
    if not path.is_file():
        raise DataError(f"there is no file {place}", f"--{role} path/file.py:function")
    return f"{role}_{path.name}", path


def _first_sample(data: DataSpec) -> tuple[Any, tuple[str, ...], str]:
    """A raw sample as the function gets it, its fields and what they hold."""
    import numpy as np

    from mlpack.api.preprocessing import columns_of
    from mlpack.datasets import raw_kind

    given = data.evaluation
    kind = raw_kind(given) if given is not None else None
    if given is None or kind is None:
        raise DataError(
            "--preprocess works on images or texts, and there are none", "--data FOLDER, or --data FILE.csv"
        )
    place = Path(given).expanduser()
    if kind == "image_folder":
        from mlpack.datasets.image_folder import ImageFolder, class_names
        from mlpack.pipeline.image import decode

        (content,) = ImageFolder(place, class_names(place)).read(np.array([0])).fields["image"]
        return decode(content), ("image",), "image"
    from mlpack.datasets.table_file import first_texts

    texts = first_texts(place, columns_of(data.columns), None)
    return (next(iter(texts.values())) if len(texts) == 1 else texts), tuple(texts), "text"


def postprocess_options(reference: str) -> tuple[dict[str, Any], dict[str, Path]]:
    """PythonPostprocess's options for `file.py:function`, and the file to carry.

    Raises:
        DataError: the function does not say what it gives.
    """
    from mlpack.core.user_code import find_reference, load_function

    place, colon, function = reference.rpartition(":")
    if not colon or not place.endswith(".py"):
        raise UsageError(f"--postprocess {reference} is no function", "--postprocess file.py:function")
    file, path = carried(place, "postprocess")
    found = load_function(find_reference(reference, "--postprocess", DataError), "postprocess function", DataError)
    columns = getattr(found, "columns", None)
    if not isinstance(columns, tuple | list) or not columns or not all(isinstance(each, str) for each in columns):
        raise DataError(
            f"postprocess function {reference!r} does not say what it gives",
            f"below it: {function}.columns = ('label', 'score')",
        )
    return {"file": file, "function": function, "columns": list(columns)}, {file: path}
