"""Settings: what flags leave out, from MLPACK_* variables, then mlpack.toml or [tool.mlpack] upwards."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mlpack.errors import RecipeError, UsageError, unknown

if TYPE_CHECKING:
    from collections.abc import Mapping

_PATHS = ("store", "cache")
_REFERENCES = ("model", "factory", "data", "train", "metric", "tokenizer", "preprocess", "target")
_MAY_BE_BARE = {"model", "data", "train", "tokenizer", "preprocess"}
_LAST_RESORT_STORE = "artifacts"
COMPILED = "compiled"
"""The folder of the cache in which backends that compile as they open a model keep the code."""
UNFINISHED: Final = "unfinished"
"""The folder of the cache in which a stage that takes long keeps how far it has come."""


def user_cache() -> Path:
    """The cache folder of this user where nobody says otherwise."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("mlpack", appauthor=False))


@dataclass(frozen=True)
class Settings:
    """What a command uses where no flag says otherwise. Paths are absolute; None: nobody said."""

    model: str | None = None
    factory: str | None = None
    data: str | None = None
    train: str | None = None
    metric: str | None = None
    tokenizer: str | None = None
    columns: str | None = None
    preprocess: str | None = None
    limit: str | None = None
    target: str | None = None
    name: str | None = None
    threads: int | None = None
    store: Path = field(default_factory=lambda: Path(_LAST_RESORT_STORE).absolute())
    cache: Path = field(default_factory=user_cache)
    file: Path | None = None


KEYS = tuple(each.name for each in fields(Settings) if each.name != "file")


def load_settings(start: Path, environment: Mapping[str, str] | None = None) -> Settings:
    """Settings for a command started in `start`.

    Raises:
        RecipeError: the file is not TOML, has an unknown key, or a value of the wrong type.
        UsageError: a variable has a value that cannot be used.
    """
    variables = os.environ if environment is None else environment
    values: dict[str, Any] = {"store": start.absolute() / _LAST_RESORT_STORE}
    found = find_file(start)
    if found:
        path, table = found
        values |= {"file": path, **{key: _from_file(path, key, value) for key, value in table.items()}}
    for key in KEYS:
        if text := variables.get(f"MLPACK_{key.upper()}"):
            values[key] = _from_variable(start, key, text)
    return Settings(**values)


def find_file(start: Path) -> tuple[Path, dict[str, Any]] | None:
    """The nearest mlpack.toml, or pyproject.toml with a [tool.mlpack] table, in `start` or above it."""
    for folder in (start.absolute(), *start.absolute().parents):
        own = folder / "mlpack.toml"
        if own.is_file():
            return own, _read(own)
        project = folder / "pyproject.toml"
        if project.is_file() and "[tool.mlpack" in project.read_text(encoding="utf-8", errors="replace"):
            table = _read(project).get("tool", {}).get("mlpack")
            if isinstance(table, dict):
                return project, table
    return None


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not valid TOML: {error}", f"correct {path}, or remove it") from error


def _from_file(path: Path, key: str, value: Any) -> Any:
    if key not in KEYS:
        wrong = unknown("key", key, KEYS)
        raise RecipeError(f"{path}: {wrong.message}", wrong.hint)
    if key == "threads":
        if type(value) is not int or value < 1:
            raise RecipeError(f"{path}: threads = {value!r} is not a whole number from 1 up", "threads = 2")
        return value
    if not isinstance(value, str) or not value:
        raise RecipeError(f"{path}: {key} = {value!r} is not a text in quotes", f'{key} = "…"')
    return _resolved(path.parent, key, value)


def _from_variable(start: Path, key: str, text: str) -> Any:
    if key == "threads":
        if not text.isascii() or not text.isdigit() or int(text) < 1:
            raise UsageError(f"MLPACK_THREADS={text} is no whole number from 1 up", "export MLPACK_THREADS=2")
        return int(text)
    return _resolved(start.absolute(), key, text)


def _resolved(base: Path, key: str, value: str) -> str | Path:
    """Paths become absolute; `package.module:function`, `top1` and `random:64` stay what they are."""
    if key in _PATHS:
        return base / Path(value).expanduser()
    if key not in _REFERENCES:
        return value
    place, colon, function = value.partition(":")
    is_path = "/" in place or place.endswith(".py") or (not colon and bool(Path(place).suffix))
    if is_path or (key in _MAY_BE_BARE and not colon and (base / place).exists()):
        return f"{base / Path(place).expanduser()}{colon}{function}"
    return value
