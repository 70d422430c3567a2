"""Engine: a program that builds images, called by its command line."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlpack.core.words import Frozen
from mlpack.errors import StageFailed

if TYPE_CHECKING:
    from pathlib import Path

_SHOWN_LINES = 3


class Image(Frozen):
    """An image that was built: by which engine, its name with the tag, and the sha256 of its configuration."""

    engine: str
    reference: str
    digest: str


@dataclass(frozen=True)
class Engine:
    """How one program is asked. `probe` exits 0 where it works; `build` gets `--tag REFERENCE FOLDER` behind it."""

    name: str
    probe: tuple[str, ...]
    build_words: tuple[str, ...]
    digest_words: tuple[str, ...]

    def refusal(self) -> str | None:
        """Why it cannot be used here, or None where it can."""
        if shutil.which(self.name) is None:
            return "is not installed"
        done = _run(self.name, *self.probe)
        return None if done.returncode == 0 else f"does not work: {_reason(done)}"

    def build(self, folder: Path, reference: str) -> Image:
        """Build the image of a folder with a Dockerfile.

        Raises:
            StageFailed: the engine refuses it; the message has the last lines of what it printed.
        """
        done = _run(self.name, *self.build_words, "--tag", reference, str(folder))
        if done.returncode:
            raise StageFailed(
                f"{self.name} cannot build {folder}: {_reason(done)}",
                f"{self.name} {' '.join(self.build_words)} --tag {reference} {folder}",
            )
        told = _run(self.name, *self.digest_words, reference)
        if told.returncode:
            raise StageFailed(f"{self.name} built {reference} and does not find it: {_reason(told)}")
        digest = told.stdout.strip().removeprefix("sha256:")
        return Image(engine=self.name, reference=reference, digest=f"sha256:{digest}")


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    return " / ".join(lines[-_SHOWN_LINES:]) or f"exit code {done.returncode}"
