"""`mlpack.recipes()`: the recipes that come with mlpack."""

from __future__ import annotations

from pathlib import Path

from mlpack.core.installation import shipped_recipes
from mlpack.core.words import Frozen


class ShippedRecipe(Frozen):
    """A recipe's name, what its first comment says, and its file."""

    name: str
    description: str
    path: Path


def recipes() -> tuple[ShippedRecipe, ...]:
    """All of them, by name; each can be run with `mlpack optimize PATH`."""
    folder = shipped_recipes()
    files = sorted(folder.glob("*.yaml")) if folder else []
    return tuple(ShippedRecipe(name=file.stem, description=_first_comment(file), path=file) for file in files)


def _first_comment(file: Path) -> str:
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            return line.lstrip("# ").rstrip()
        if line.strip():
            break
    return ""
