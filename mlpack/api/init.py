"""`mlpack.init()`: looks at a model and data, and writes down what every command would else be told."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlpack.core.filesystem import write_atomic
from mlpack.core.recipe import SourceSpec
from mlpack.datasets import raw_kind
from mlpack.errors import MlpackError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

FILE = "mlpack.toml"
# The safest and most complete kinds first: a folder often holds one model in several forms.
_MODELS = (".pt2", ".onnx", ".safetensors", ".pt", ".pth", ".bin")
_HEAD = (
    "# What mlpack uses where no flag says otherwise; a flag always wins. Written by `mlpack init`, yours to change.\n"
)


@dataclass(frozen=True)
class Found:
    """Something in the folder that could be the model or the data: what it is, or why it cannot be used."""

    path: str
    what: str
    usable: bool


@dataclass(frozen=True)
class Initialized:
    """The file that was written, and what was found: the first usable one of each is in it."""

    path: Path
    models: tuple[Found, ...]
    data: tuple[Found, ...]

    @property
    def model(self) -> Found | None:
        """The model that the file names."""
        return next((each for each in self.models if each.usable), None)

    @property
    def dataset(self) -> Found | None:
        """The data that the file names."""
        return next((each for each in self.data if each.usable), None)

    def document(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "path": str(self.path),
            "model": self.model.path if self.model else None,
            "data": self.dataset.path if self.dataset else None,
            "models": [vars(each) for each in self.models],
            "datasets": [vars(each) for each in self.data],
        }


def init(
    model: str | Path | None = None,
    data: str | Path | None = None,
    *,
    factory: str | None = None,
    force: bool = False,
) -> Initialized:
    """Write a commented mlpack.toml into the current folder.

    Without `model` or `data` they are looked for among the files and folders there; nothing is loaded or run but a
    data function that is named.

    Raises:
        UsageError: there is an mlpack.toml already, without `force`.
        ModelError, DataError: what was named cannot be used.
        MachineError: the folder cannot be written.
    """
    place = Path.cwd() / FILE
    if place.exists() and not force:
        raise UsageError(f"{place} is there already", "change it, or write it anew with --force")
    models = (_model(str(model), factory),) if model is not None else tuple(_models(factory))
    datasets = (_data(str(data)),) if data is not None else tuple(_datasets())
    done = Initialized(place, models, datasets)
    write_atomic(place, _text(done, factory))
    return done


def _models(factory: str | None) -> Iterable[Found]:
    here = sorted(Path().iterdir())
    files = [path for suffix in _MODELS for path in here if path.is_file() and path.suffix == suffix]
    folders = [path for path in here if (path / "config.json").is_file()]
    for path in [*folders, *files]:
        try:
            yield _model(str(path), factory)
        except MlpackError as error:
            yield Found(str(path), error.message.splitlines()[0], usable=False)


def _model(path: str, factory: str | None) -> Found:
    from mlpack.core.filesystem import size_on_disk
    from mlpack.sources.detect import detect

    found = detect(SourceSpec(model=path, factory=factory))
    what = found.kind.replace("_", " ")
    if found.path is not None:
        what = f"{what}, {size_on_disk(found.path) / 1e6:,.1f} MB"
    return Found(path, what, usable=True)


def _datasets() -> Iterable[Found]:
    here = sorted(Path().iterdir())
    files = [path for path in here if path.suffix == ".npz"]
    folders = [path for path in here if path.is_dir() and any(path.glob("*.npy"))]
    raw = [path for path in here if not path.name.startswith(".") and raw_kind(str(path)) is not None]
    for path in [*files, *folders, *raw]:
        try:
            yield _data(str(path))
        except MlpackError as error:
            yield Found(str(path), error.message.splitlines()[0], usable=False)


def _data(path: str) -> Found:
    from mlpack.datasets import open_data

    kind = raw_kind(path)
    if kind is not None:
        return Found(path, _texts(Path(path)) if kind == "table_file" else _images(Path(path)), usable=True)
    dataset = open_data(path)
    inputs = ", ".join(map(str, dataset.inputs))
    labels = "labels" if dataset.labelled else "no labels: agreement with the original, not accuracy"
    return Found(path, f"{len(dataset):,} samples of {inputs}; {labels}", usable=True)


def _texts(path: Path) -> str:
    from mlpack.datasets.table_file import look

    found = look(path, {}, None)
    told = ", ".join(f"{name} in column {column!r}" for name, column in found.columns.items())
    return f"{found.rows:,} rows: {told}"


def _images(path: Path) -> str:
    from mlpack.datasets.image_folder import ImageFolder, class_names

    names = class_names(path)
    count = len(ImageFolder(path, names))
    return f"{count:,} images " + (f"in {len(names)} classes: {', '.join(names)}" if names else "without labels")


def _text(done: Initialized, factory: str | None) -> str:
    lines = [_HEAD]
    lines += _choice("model", done.model, done.models, '"model.pt2"')
    lines.append(
        f"factory = {_quoted(factory)}" if factory else '# factory = "model.py:network"   # for weights without code'
    )
    lines += ["", *_choice("data", done.dataset, done.data, '"eval.npz"')]
    lines += [
        '# train = "train.npz"    # for --prune and --student: rows to learn from, none of them among data',
        "",
        '# limit = "1%"          # of the metric; or "0.8pt", "none". Labelled data implies 1%',
        '# tokenizer = "tokenizer"            # for texts: where tokenizer.json is, if not beside the model',
        '# columns = "text=review,label=stars"  # for texts: what a table holds where, if not under the usual names',
        '# preprocess = "imagenet"            # for images: a preset, a YAML file of options, or file.py:function',
        '# metric = "top1"       # or another, or "metrics.py:function"; else it follows from labels and outputs',
        '# target = "cpu"        # mlpack targets has the others',
        '# name = "my-model"     # of the artifact; else that of the model',
        "# threads = 2           # else as many as this process may use",
        '# store = "artifacts"   # where artifacts lie',
        '# cache = ".mlpack"     # where finished stages are kept; else in the user\'s cache folder',
    ]
    return "\n".join(lines) + "\n"


def _choice(key: str, chosen: Found | None, found: tuple[Found, ...], example: str) -> list[str]:
    lines = [f"# {chosen.what}", f"{key} = {_quoted(chosen.path)}"] if chosen else [f"# {key} = {example}"]
    others = [each for each in found if each is not chosen]
    return [*lines, *(f"# {key} = {_quoted(each.path)}   # {each.what}" for each in others)]


def _quoted(text: str) -> str:
    """A TOML basic string; JSON's escapes are a part of TOML's."""
    return json.dumps(text, ensure_ascii=False)
