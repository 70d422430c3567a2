"""A target of one's own, described in a YAML file: a row as the catalogue has them, or what differs from one."""

from __future__ import annotations

import re
from datetime import date
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from mlpack.core.target import Target
from mlpack.errors import UsageError, unknown

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SUFFIXES = (".yaml", ".yml")
NUMERICS = ("fp32", "tf32", "fp16", "bf16", "int8", "int4", "fp8", "fp4")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_EXAMPLE = "extends: a100, and below it only what differs; `mlpack targets a100 --json` shows all that there is"


def read_target(path: Path, known: Mapping[str, Target]) -> Target:
    """The target that the file describes. `extends` names one of the known ones, whose values it begins with.

    It is not this machine unless it says `here: true`. `name` is the file's unless it says another.

    Raises:
        UsageError: it cannot be read, or does not describe a target.
    """
    given = _content(path)
    base: dict[str, Any] = {"name": path.stem.lower(), "title": path.stem, "source": path.name, "date": "–"}
    if (extended := given.pop("extends", None)) is not None:
        if extended not in known:
            wrong = unknown("target", str(extended), known)
            raise UsageError(f"{path}: extends: {wrong.message}", wrong.hint)
        base = {**known[extended].model_dump(mode="json"), **base, "here": False}
        if "peak" in given:
            base["sparse_peak"] = {}
    try:
        target = Target.model_validate({**base, **given})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            wrong = unknown("key", place, Target.model_fields)
            raise UsageError(f"{path}: {wrong.message}", wrong.hint) from error
        raise UsageError(f"{path}: {place}: {first['msg']}", _EXAMPLE) from error
    _check(path, target, known)
    return target


def _content(path: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{path} cannot be read: {reason}", "--target takes a name or such a file") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not valid YAML: {str(error).splitlines()[0]}", _EXAMPLE) from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UsageError(f"{path} does not describe a target: it has to be a table of keys", _EXAMPLE)
    # YAML reads 2026-11-01 as a day.
    return {key: value.isoformat() if isinstance(value, date) else value for key, value in content.items()}


def _check(path: Path, target: Target, known: Mapping[str, Target]) -> None:
    if not _NAME.fullmatch(target.name):
        raise UsageError(f"{path}: name: {target.name!r} is no name", "small letters, digits, '.', '_' and '-'")
    if target.name in known:
        raise UsageError(f"{path}: there is already a target {target.name!r}", "name: another")
    for each in target.numerics:
        if each not in NUMERICS:
            wrong = unknown("numerics", each, NUMERICS)
            raise UsageError(f"{path}: {wrong.message}", wrong.hint)
    rules = {each.rules for each in known.values()}
    if target.rules not in rules:
        wrong = unknown("rule set", target.rules, rules)
        raise UsageError(f"{path}: {wrong.message}", wrong.hint)
    if target.kind == "cuda" and target.here:
        raise UsageError(f"{path}: here: a card is here where its driver shows it", "leave `here` out")
