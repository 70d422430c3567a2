"""Becomes the server only where every file that it would load is the one that was packaged.

    python3 verified.py tritonserver …     compares, then becomes the server

Whoever can alter the files of an image can alter their list too: it shows a file that was changed or damaged on its
way, not a forger. MODELS is where the model repository lies, if not beside this file.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

HERE = Path(__file__).resolve().parent
LIST = HERE / "mlpack-package.json"
REPOSITORY = "model_repository"
MODELS = Path(os.environ.get("MODELS", HERE / REPOSITORY))
_PIECE = 1 << 20
_STOPPED = 128 + signal.SIGTERM


class AlteredError(Exception):
    """A file is missing or is not the one that was packaged; the message names it."""


def main(words: list[str]) -> NoReturn:
    """Become the server of these words, unless a file was altered."""
    # The first process of a container ends at no signal that it does not take.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_STOPPED))
    try:
        count = compare()
    except AlteredError as error:
        _say(f"{error}; the server is not started")
        sys.exit(1)
    _say(f"{count} files, all as packaged")
    os.execvp(words[0], words)  # noqa: S606 - the server takes this process's place, and its signals


def compare() -> int:
    """How many files of the model repository were compared with the package's list.

    Raises:
        AlteredError: one is not as packaged, or the list cannot be read.
    """
    try:
        listed: dict[str, str] = json.loads(LIST.read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AlteredError(f"{LIST.name} is missing or damaged: {error!r}") from error
    served = {name: digest for name, digest in listed.items() if name.startswith(f"{REPOSITORY}/")}
    for name, digest in served.items():
        path = MODELS / name.removeprefix(f"{REPOSITORY}/")
        if not path.is_file():
            raise AlteredError(f"{name} is missing")
        if _sha256(path) != digest:
            raise AlteredError(f"{name} was altered: its sha256 is not the packaged one")
    return len(served)


def _sha256(path: Path) -> str:
    # No hashlib.file_digest: images of some releases have Python 3.10.
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _say(text: str) -> None:
    sys.stderr.write(f"verified.py: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
