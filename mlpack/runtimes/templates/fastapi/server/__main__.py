"""Starts the server: `python -m server`. HOST, PORT and MAX_BODY_BYTES are read from the environment."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import uvicorn

from .app import create_app
from .description import PackageAltered, check_files, read_description
from .pipelines import Pipelines
from .sessions import ModelFailed, Session, open_session

if TYPE_CHECKING:
    from types import FrameType

    from .batching import Batcher

PACKAGE = Path(__file__).resolve().parent.parent
GRACE_SECONDS = 25


class BadSetting(Exception):
    """An environment variable has a value that cannot be used."""


class Server(uvicorn.Server):
    """A server that is no longer ready from the moment on at which it is told to stop."""

    def __init__(self, config: uvicorn.Config, batcher: Batcher) -> None:
        super().__init__(config)
        self._batcher = batcher

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Refuse new requests; uvicorn then answers those that were accepted, and ends."""
        self._batcher.refuse()
        super().handle_exit(sig, frame)


def main() -> int:
    """Check the files, open and warm up the model, serve. The exit code is 0, 2 bad setting, 4 or 5."""
    try:
        check_files(PACKAGE)
        description = read_description(PACKAGE)
        sessions = [open_session(PACKAGE, description) for _ in range(description.limits.instances)]
        for session in sessions:
            _warm_up(session)
        pipelines = Pipelines(PACKAGE, description) if description.raw else None
        port = _setting("PORT", 8000)
        limit = _setting("MAX_BODY_BYTES", description.limits.max_body_bytes)
    except PackageAltered as error:
        return _refuse(5, f"{error}\nhint: package the artifact again with `mlpack package`")
    except ModelFailed as error:
        return _refuse(4, f"the model cannot be opened: {error}")
    except BadSetting as error:
        return _refuse(2, str(error))
    description = replace(description, limits=replace(description.limits, max_body_bytes=limit))
    app, batcher = create_app(description, sessions, pipelines)
    config = uvicorn.Config(
        app,
        host=os.environ.get("HOST", "127.0.0.1"),
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    Server(config, batcher).run()
    return 0


def _refuse(exit_code: int, message: str) -> int:
    sys.stderr.write(f"error: {message}\n")
    return exit_code


def _setting(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not (text.isascii() and text.isdigit()):
        raise BadSetting(f"{name}={text} is not a whole number")
    return int(text)


def _warm_up(session: Session) -> None:
    """Run the first golden sample, so that the first request does not pay for lazy initialisation."""
    rows = json.loads((PACKAGE / "golden" / "golden.json").read_text())["rows_per_request"]
    with np.load(PACKAGE / "golden" / "inputs.npz") as arrays:
        session({name: arrays[name][:rows] for name in arrays.files})


if __name__ == "__main__":
    sys.exit(main())
