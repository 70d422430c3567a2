"""`mlpack.doctor()`: is this machine fit: libraries, CPU, NVIDIA devices, disk space, names."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from packaging.version import Version

from mlpack.backends.tensorrt_library import KINDS, lacking, version_of
from mlpack.core import installation, machine
from mlpack.core.settings import load_settings
from mlpack.core.threads import usable_threads
from mlpack.core.words import Frozen

# The newest versions that the tests ran with; what is newer most likely works, and has not been tried.
TESTED_UP_TO = {
    "torch": "2.13",
    "onnx": "1.23",
    "onnxruntime": "1.31",
    "onnxscript": "0.7",
    "onnxsim": "0.8",
    "openvino": "2026.4",
    "numpy": "2.5",
    "pydantic": "2.14",
    "typer": "0.29",
}
_ENOUGH_DISK = 5_000_000_000
COLLISION_HINT = (
    f"pip uninstall {installation.OTHER} && pip install --force-reinstall --no-deps {installation.DISTRIBUTION}"
)


class Check(Frozen):
    """One thing that was looked at: `wrong` must be mended, `warning` should be known."""

    area: Literal["library", "machine", "disk", "name"]
    name: str
    status: Literal["ok", "warning", "wrong"]
    found: str
    wanted: str = ""
    hint: str = ""


class Diagnosis(Frozen):
    """All checks, and whether nothing is wrong."""

    checks: tuple[Check, ...]

    @property
    def wrong(self) -> tuple[Check, ...]:
        """The checks that must be mended."""
        return tuple(check for check in self.checks if check.status == "wrong")


def doctor() -> Diagnosis:
    """Look at everything; imports none of the libraries that it looks at."""
    return Diagnosis(checks=(*_libraries(), *_machine(), *_disk(), _name()))


def _libraries() -> list[Check]:
    texts = installation.requirements()
    return [_library(Requirement(text)) for text in texts if _applies(Requirement(text))]


def _applies(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate()


def _library(requirement: Requirement) -> Check:
    tested = TESTED_UP_TO.get(requirement.name)
    wanted = f"{requirement.specifier}" + (f", tested up to {tested}" if tested else "")
    version = installation.installed_version(requirement.name)
    status: Literal["ok", "warning", "wrong"] = "ok"
    hint = ""
    if version is None or not requirement.specifier.contains(version, prereleases=True):
        status, hint = "wrong", f"pip install '{requirement.name}{requirement.specifier}'"
    elif tested and Version(version).release[: len(Version(tested).release)] > Version(tested).release:
        status, hint = (
            "warning",
            f"newer than tested; if it fails: pip install '{requirement.name}=={tested}.*'",
        )
    return Check(
        area="library",
        name=requirement.name,
        status=status,
        found=version or "not installed",
        wanted=wanted,
        hint=hint,
    )


def _machine() -> list[Check]:
    cuda, devices = installation.torch_cuda(), machine.nvidia_devices()
    said = ", ".join(device.name for device in devices) or "none"
    build = f"built for CUDA {cuda}" if cuda else "CPU build"
    is_odd = bool(devices) != bool(cuda)
    hint = ""
    if is_odd:
        hint = (
            "torch would not use the NVIDIA device: install a CUDA build of torch"
            if devices
            else "a CPU build of torch is several GB smaller and does the same here"
        )
    return [
        Check(
            area="machine",
            name="Python",
            status="ok",
            found=f"{platform.python_version()} {platform.system()}",
        ),
        Check(area="machine", name="CPU", status="ok", found=machine.cpu_name()),
        Check(area="machine", name="ISA", status="ok", found=" ".join(machine.isa()) or platform.machine()),
        Check(area="machine", name="threads", status="ok", found=f"{usable_threads()} usable"),
        Check(area="machine", name="NVIDIA", status="ok", found=said),
        _compiler(),
        _engines(),
        Check(area="machine", name="torch build", status="warning" if is_odd else "ok", found=build, hint=hint),
    ]


def _compiler() -> Check:
    found = machine.cpp_compiler()
    if found is None:
        why, hint = machine.NO_CPP_COMPILER
        told = f"none: --backend aotinductor and torch_compile are left out ({why})"
        return Check(area="machine", name="C++ compiler", status="warning", found=told, hint=hint)
    return Check(area="machine", name="C++ compiler", status="ok", found=found)


def _engines() -> Check:
    usable = [f"{kind.title} {version_of(name)}" for name, kind in KINDS.items() if lacking(name) is None]
    if usable:
        where = "" if machine.nvidia_devices() else "; engines are built here, and run on a card"
        return Check(area="machine", name="TensorRT", status="ok", found=", ".join(usable) + where)
    # What is there in another version is told; that there is none is no fault of a machine without a card.
    errors = {name: lacking(name) for name in KINDS}
    wrong = next((error for name, error in errors.items() if error and version_of(name)), None)
    if wrong is not None:
        return Check(area="machine", name="TensorRT", status="warning", found=wrong.message, hint=wrong.hint)
    return Check(area="machine", name="TensorRT", status="ok", found="none: no engines are built here")


def _disk() -> list[Check]:
    settings = load_settings(Path.cwd())
    return [_folder("store", settings.store), _folder("cache", settings.cache)]


def _folder(name: str, folder: Path) -> Check:
    there = next(each for each in (folder, *folder.parents) if each.exists())
    free = shutil.disk_usage(there).free
    status: Literal["ok", "warning", "wrong"] = "ok"
    hint = ""
    if not there.is_dir() or not os.access(there, os.W_OK):
        status, hint = (
            "wrong",
            f"get write access to it, or set MLPACK_{name.upper()} to a folder of your own",
        )
    elif free < _ENOUGH_DISK:
        status, hint = "warning", "free some space: mlpack gc"
    return Check(area="disk", name=name, status=status, found=f"{folder}: {free / 1e9:.1f} GB free", hint=hint)


def _name() -> Check:
    other = installation.other_mlpack()
    if other is None:
        return Check(area="name", name="mlpack", status="ok", found="no other package has this import name")
    return Check(
        area="name",
        name="mlpack",
        status="wrong",
        found=f"PyPI's mlpack {other}, another project, writes into the same folder",
        hint=COLLISION_HINT,
    )
