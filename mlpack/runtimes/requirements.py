"""What an image installs: the pinned libraries with all that they need in turn, and its bill of materials."""

from __future__ import annotations

import re
from importlib import metadata
from typing import TYPE_CHECKING, Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mlpack.runtimes.package_files import json_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from mlpack.core.artifact import Artifact

# What markers are asked about: the images have this Python, whatever runs here.
_IMAGE = {"os_name": "posix", "platform_system": "Linux", "python_full_version": "3.11.0", "python_version": "3.11",
          "sys_platform": "linux", "platform_python_implementation": "CPython",
          "implementation_name": "cpython"}  # fmt: skip


def needed_by(pins: Mapping[str, str]) -> dict[str, str]:
    """Versions of all that the pinned libraries need beside themselves, in turn, as they are installed here.

    A library of which another version, or none, is installed here leaves what it needs unpinned: what another version
    needs is not known.
    """
    given = {canonicalize_name(name): _base(version) for name, version in pins.items()}
    found: dict[str, str] = {}
    waiting = [(name, frozenset[str]()) for name in given]
    seen = set(waiting)
    while waiting:
        name, extras = waiting.pop()
        installed = _version(name)
        if installed is None or installed != given.get(name, installed):
            continue
        if name not in given:
            found[name] = installed
        fresh = {(canonicalize_name(each.name), frozenset(each.extras)) for each in _wanted(name, extras)} - seen
        seen |= fresh
        waiting += fresh
    return dict(sorted(found.items()))


def _wanted(name: str, extras: Iterable[str]) -> Iterator[Requirement]:
    """The requirements of a distribution that hold in the image."""
    for text in metadata.requires(name) or ():
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({**_IMAGE, "extra": extra}) for extra in ("", *extras)):
            yield requirement


def _version(name: str) -> str | None:
    try:
        return _base(metadata.version(name))
    except metadata.PackageNotFoundError:
        return None


def _base(version: str) -> str:
    """Without a local part (1.2+cpu), which names a build that no public index has."""
    return version.partition("+")[0]


def bill_of_materials(artifact: Artifact, libraries: Mapping[str, str]) -> str:
    """The Python packages of the image as CycloneDX 1.6; the same for the same artifact: no time, no serial number.

    Where what a library needs is not known here, the bill says that it is incomplete, and which libraries those are.
    """
    components = [_component(name, version) for name, version in sorted(libraries.items())]
    unknown = [
        component["bom-ref"]
        for component, (name, version) in zip(components, sorted(libraries.items()), strict=True)
        if _version(canonicalize_name(name)) != _base(version)
    ]
    open_ends = {"aggregate": "incomplete", "assemblies": ["image"], "dependencies": unknown}
    return json_text(
        {
            "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "version": 1,
            "metadata": {
                "component": {
                    "type": "container",
                    "bom-ref": "image",
                    "name": artifact.name,
                    "version": str(artifact.version),
                    "properties": [{"name": "mlpack:artifact_digest", "value": artifact.digest}],
                },
            },
            "components": components,
            **({"compositions": [open_ends]} if unknown else {}),
        }
    )


def _component(name: str, version: str) -> dict[str, Any]:
    # https://github.com/package-url/purl-spec: of PyPI in lower case, with dashes.
    purl = f"pkg:pypi/{re.sub(r'[-_.]+', '-', name).lower()}@{version}"
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
