"""Starts TorchServe, and ends it when nobody waits for an answer any more: by itself it drops what it has accepted.

    python graceful.py MODEL CONFIG torchserve --start --foreground …

TorchServe cannot be told to accept no more, and workers that are scaled down fail what waits for them. So at SIGTERM it
goes on as it is until its queue is empty and its workers are idle, for as long as a batch may be waited for and a
little more; after LIMIT_SECONDS it is ended whatever it does. Who sends it requests has to stop meanwhile, as
orchestrators see to.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

# compose.yaml and the manifests give it a few seconds more.
LIMIT_SECONDS = 25.0
KEYS = Path("key_file.json")
BUSY = "BUSY_FOLDER"
_ADDRESS = "management_address"
_MARGIN_SECONDS = 0.25
_STEP_SECONDS = 0.02
_QUESTION_SECONDS = 4.0
_END_SECONDS = 3.0
_STOPPING = (signal.SIGTERM, signal.SIGINT)


class StopAsked(Exception):
    """SIGTERM or SIGINT has come."""


def main(model: str, config: Path, command: list[str]) -> int:
    """Start the command and wait for its end, or for a signal; the exit code."""
    if os.getpgrp() != os.getpid():
        # Java and its workers are ended as a group, and nobody else with them.
        os.setpgid(0, 0)
    with tempfile.TemporaryDirectory(prefix="busy-") as busy:
        server = subprocess.Popen(command, env={**os.environ, BUSY: busy})
        try:
            for each in _STOPPING:
                signal.signal(each, _stop)
            return server.wait()
        except StopAsked:
            for each in _STOPPING:
                signal.signal(each, signal.SIG_IGN)
            _wait_until_quiet(model, config, Path(busy))
            _end(server)
            return 0


def _stop(*_: object) -> None:
    raise StopAsked


def _wait_until_quiet(model: str, config: Path, busy: Path) -> None:
    """Until nothing waits and nothing is worked on for longer than a batch may be waited for."""
    lines = (line.partition("=") for line in config.read_text(encoding="utf-8").splitlines())
    address = f"{next(value for key, _, value in lines if key == _ADDRESS)}/models/{model}"
    deadline = time.monotonic() + LIMIT_SECONDS
    quiet_since = time.monotonic()
    while time.monotonic() < deadline:
        try:
            told = _described(address)
        except (OSError, ValueError, KeyError) as error:
            # It has not started, or has ended: there is nothing to wait for.
            _say(f"it does not say what waits ({error!r}): it is ended")
            return
        now = time.monotonic()
        if told["jobQueueStatus"]["pendingRequests"] or _is_worked(busy):
            quiet_since = now
        elif now - quiet_since > told["maxBatchDelay"] / 1000 + _MARGIN_SECONDS:
            _say("every request is answered: it is ended")
            return
        time.sleep(_STEP_SECONDS)
    _say(f"requests still come after {LIMIT_SECONDS:g} s: it is ended, and those in flight are lost")


def _described(address: str) -> dict[str, Any]:
    """What the management port says of the model; it wants a token where there are any."""
    headers = {}
    if KEYS.is_file():
        key = json.loads(KEYS.read_text(encoding="utf-8"))["management"]["key"]
        headers["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(address, headers=headers)  # noqa: S310 - our own port
    # No proxy that the environment names may answer for it.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=_QUESTION_SECONDS) as answer:
        (told,) = json.load(answer)
    described: dict[str, Any] = told
    return described


def _is_worked(busy: Path) -> bool:
    """Whether a worker holds its lock, as it does while it answers; one that died holds none."""
    for path in busy.iterdir():
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
    return False


def _end(server: subprocess.Popen[bytes]) -> None:
    os.killpg(os.getpgrp(), signal.SIGTERM)
    try:
        server.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()


def _say(text: str) -> None:
    sys.stderr.write(f"graceful.py: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:]))
