"""Collects, on a machine with a network, the wheels that `make gpu` needs on one without: into .whl/, up to a size.

A machine with a card is taken to have torch with what comes with it, numpy and pip; `--have FILE` names all that it has
(`pip list --format=freeze` there), and what stands in it is not fetched. Wheels are taken in the order of
gpu-wheels.txt until the next does not fit; what is left out is said, and `make gpu` says what it could not run for it.
"""

from __future__ import annotations

import argparse
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
# pip matches a manylinux tag exactly, so all are named that a system of today runs.
GLIBC = range(5, 40)
OLDER = ("manylinux2014", "manylinux2010", "manylinux1")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default="3.12", help="the version of Python on that machine")
    parser.add_argument("--have", type=Path, metavar="FILE", help="its `pip list --format=freeze`")
    parser.add_argument("--most-mib", type=float, default=48, help="all wheels together")
    parser.add_argument("--out", type=Path, default=ROOT / ".whl")
    given = parser.parse_args()
    there = names(given.have.read_text(encoding="utf-8")) if given.have else set()
    wanted = listed((HERE / "gpu-wheels.txt").read_text(encoding="utf-8"))
    given.out.mkdir(parents=True, exist_ok=True)
    for old in given.out.glob("*.whl"):
        old.unlink()
    room = given.most_mib * 2**20
    left_out = []
    for names_of_one in wanted:
        if there.isdisjoint(names_of_one):
            reasons, room = taken(names_of_one, given, room)
            left_out += reasons
    count = len(list(given.out.glob("*.whl")))
    print(f"{count} wheels in {given.out.name}/, {given.most_mib - room / 2**20:.1f} MiB")
    for line in left_out:
        print(f"left out: {line}")
    return 0


def taken(alternatives: list[str], given: argparse.Namespace, room: float) -> tuple[list[str], float]:
    """Fetch the first of these that fits; why each one before it did not, and the room that is left."""
    reasons: list[str] = []
    for name in alternatives:
        with tempfile.TemporaryDirectory() as folder:
            reason = fetched(name, given.python, Path(folder))
            wheel = next(Path(folder).glob("*.whl"), None)
            if reason is None and wheel is not None and wheel.stat().st_size <= room:
                shutil.copy(wheel, given.out / wheel.name)
                return reasons, room - wheel.stat().st_size
            size = "" if wheel is None else f"its {wheel.stat().st_size / 2**20:.0f} MiB do not fit"
        reasons.append(f"{name}: {reason or size}")
    return reasons, room


def listed(text: str) -> list[list[str]]:
    """The distributions of a list in its order, each with what does in its place."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [[normal(word.strip()) for word in line.split("|")] for line in lines if line]


def names(freeze: str) -> set[str]:
    """What stands in a `pip list --format=freeze`."""
    return {normal(re.split(r"[=@ ]", line, maxsplit=1)[0]) for line in freeze.splitlines() if line.strip()}


def normal(name: str) -> str:
    """A distribution's name as all tools spell it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def fetched(name: str, python: str, folder: Path) -> str | None:
    """Download one wheel, in the version of constraints.txt where it has one; why not, or None."""
    machine = platform.machine()
    tags = [*(f"manylinux_2_{minor}_{machine}" for minor in GLIBC), *(f"{tag}_{machine}" for tag in OLDER)]
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
        "--only-binary=:all:", "--python-version", python, "--implementation", "cp",
        *(word for tag in tags for word in ("--platform", tag)),
        "-c", str(ROOT / "constraints.txt"), "-d", str(folder), name,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    return next((line for line in reversed(done.stderr.strip().splitlines()) if "ERROR" in line), "pip fails")


if __name__ == "__main__":
    sys.exit(main())
