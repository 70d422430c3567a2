"""What is installed beside mlpack: versions of libraries, torch's build, the other package of our name."""

from __future__ import annotations

import importlib.util
import re
from importlib import metadata
from pathlib import Path

DISTRIBUTION = "mlpack-toolchain"
OTHER = "mlpack"


def installed_version(distribution: str) -> str | None:
    """The version of a distribution, or None where it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def requirements() -> list[str]:
    """What mlpack-toolchain itself requires, extras left out, as PEP 508 texts."""
    try:
        told = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return []
    return [text for text in told if "extra ==" not in text]


def unmet(distribution: str) -> list[str]:
    """What an installed distribution requires, extras left out, that is not here in a version that fits it."""
    from packaging.requirements import Requirement

    wrong = []
    for required in map(Requirement, metadata.requires(distribution) or []):
        if required.marker is not None and not required.marker.evaluate({"extra": ""}):
            continue
        version = installed_version(required.name)
        if version is None or not required.specifier.contains(version, prereleases=True):
            wrong.append(f"{required.name}{required.specifier} (here: {version or 'none'})")
    return wrong


def other_mlpack() -> str | None:
    """The version of PyPI's `mlpack`, another project that claims our import name; None: not installed."""
    return installed_version(OTHER)


def torch_cuda() -> str | None:
    """The CUDA version that the installed torch is built for; None: a CPU build, or no torch."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.origin:
        return None
    file = Path(spec.origin).with_name("version.py")
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    found = re.search(r"^cuda\b[^=\n]*=\s*['\"]([^'\"]+)['\"]", text, re.MULTILINE)
    return found[1] if found else None


def shipped_recipes() -> Path | None:
    """The folder of recipes: inside an installed wheel, or at the top of a checkout."""
    package = Path(__file__).parent.parent
    for folder in (package / "shipped_recipes", package.parent / "recipes"):
        if folder.is_dir():
            return folder
    return None
