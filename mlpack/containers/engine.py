"""Engine: a program that builds images, and mostly runs them, called by its command line."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlpack.core.words import Frozen
from mlpack.errors import StageFailed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_SHOWN_LINES = 3
# As compose.yaml and the Kubernetes manifests do.
_HARDENED = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")  # noqa: S108


class Image(Frozen):
    """An image that was built: by which engine, its name with the tag, and the sha256 of its configuration."""

    engine: str
    reference: str
    digest: str


@dataclass(frozen=True)
class Engine:
    """How one program is asked. `probe` exits 0 where it works; `build_words` get `--tag REFERENCE FOLDER` behind them.

    `run_words` are None where it cannot run what it has built.
    """

    name: str
    probe: tuple[str, ...]
    build_words: tuple[str, ...]
    digest_words: tuple[str, ...]
    run_words: tuple[str, ...] | None

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
        digest = self.digest(reference)
        if digest is None:
            raise StageFailed(f"{self.name} built {reference} and does not find it", f"{self.name} images")
        return Image(engine=self.name, reference=reference, digest=digest)

    def digest(self, reference: str) -> str | None:
        """The sha256 of an image's configuration; None: there is no such image."""
        told = _run(self.name, *self.digest_words, reference)
        return None if told.returncode else f"sha256:{told.stdout.strip().removeprefix('sha256:')}"

    def command(self, image: str, name: str, ports: Mapping[int, int], flags: Sequence[str] = ()) -> tuple[str, ...]:
        """What runs an image in the foreground, hardened; `ports` are its own by those of this machine's loopback."""
        assert self.run_words is not None
        published = [word for here, there in ports.items() for word in ("--publish", f"127.0.0.1:{here}:{there}")]
        return (self.name, *self.run_words, "--rm", "--name", name, *_HARDENED, *published, *flags, image)

    def remove(self, name: str) -> None:
        """Take away a container, whatever it does; nothing of this name is fine."""
        _run(self.name, "rm", "--force", name)


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    return " / ".join(lines[-_SHOWN_LINES:]) or f"exit code {done.returncode}"
