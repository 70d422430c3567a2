"""Starts the server: `python -m server`. What differs from place to place it reads from the environment."""

from __future__ import annotations

import gc
import math
import sys
from pathlib import Path

import uvicorn

from .app import create_app
from .connections import bounded
from .description import PackageAltered, check_files, read_description
from .environment import BadSetting, PortTaken
from .opening import open_model
from .pipelines import Pipelines
from .process import ACCEPTED_AT_ONCE, Server, listening_socket
from .sessions import ModelFailed
from .settings import read_settings

PACKAGE = Path(__file__).resolve().parent.parent
# Beyond the time that an answer may take: what was accepted last is still answered.
GRACE_SECONDS = 5
# Longer than proxies keep a connection: one that is closed here while a proxy sends on it is a lost request.
KEEP_ALIVE_SECONDS = 75
# A worker that has run a batch needs Python's lock to begin the next one. The event loop gives it away when it reads or
# writes; in between, a worker waits this long before it asks for it.
SWITCH_SECONDS = 0.0005


def main() -> int:
    """Check the files, open and warm up the model, serve. The exit code is 0, 2 bad setting, 3 no port, 4 or 5."""
    try:
        check_files(PACKAGE)
        description = read_description(PACKAGE)
        settings = read_settings(description)
        # Before the model, which may take a minute to open: who connects meanwhile waits.
        listening = listening_socket()
        models = [open_model(PACKAGE, description) for _ in range(description.limits.instances)]
        pipelines = Pipelines(PACKAGE, description) if description.raw else None
    except PackageAltered as error:
        return _refuse(5, f"{error}\nhint: package the artifact again with `mlpack package`")
    except ModelFailed as error:
        return _refuse(4, f"the model cannot be opened: {error}")
    except PortTaken as error:
        return _refuse(3, str(error))
    except BadSetting as error:
        return _refuse(2, str(error))
    sys.setswitchinterval(SWITCH_SECONDS)
    app, batcher = create_app(description, models, pipelines, settings)
    config = uvicorn.Config(
        app,
        backlog=ACCEPTED_AT_ONCE,
        http=bounded(settings.bounds.seconds),
        ws="none",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        loop="uvloop",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(description.limits.timeout_ms / 1000) + GRACE_SECONDS,
    )
    # What is here now stays. A full collection, every 20 s under load, would look at all of it with Python's lock
    # held: 62 to 137 ms in which no request is answered and no batch begins.
    gc.collect()
    gc.freeze()
    Server(config, batcher).run([listening])
    return 0


def _refuse(exit_code: int, message: str) -> int:
    sys.stderr.write(f"error: {message}\n")
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
