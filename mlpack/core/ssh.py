"""Another machine over ssh: the user's own client, so that their keys, agent and ~/.ssh/config hold."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from typing import TYPE_CHECKING

from mlpack.errors import MachineError, MissingLibrary, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CLIENT = "MLPACK_SSH"
_UNREACHED = 255


class Host:
    """A machine that `ssh` reaches, as `user@host`, `ssh://user@host:port` or a name in ~/.ssh/config.

    The variable MLPACK_SSH holds another client with its flags, as in `ssh -F file`.
    """

    def __init__(self, address: str) -> None:
        """Of an address.

        Raises:
            UsageError: it would be read as a flag.
            MissingLibrary: there is no ssh client here.
        """
        if not address or address.startswith("-") or any(each.isspace() for each in address):
            raise UsageError(f"{address!r} is no machine", "write it as ssh takes it: --build-host user@host")
        self.address = address
        self._client = shlex.split(os.environ.get(CLIENT) or "ssh")
        if shutil.which(self._client[0]) is None:
            raise MissingLibrary(f"there is no {self._client[0]} on this machine", "apt install openssh-client")

    def run(self, script: str, sent: Path, received: Path, say: Callable[[str], None]) -> tuple[int, str]:
        """Run a script of sh there, with one file as its input and another for its output.

        What it writes to stderr is said line by line; its exit code and the last of these lines are given.

        Raises:
            MachineError: the machine cannot be reached, or does not let us in.
        """
        # Nobody is asked for a password: a run may take hours and has no terminal.
        words = [*self._client, "-T", "-o", "BatchMode=yes", self.address, shlex.join(["sh", "-c", script])]
        last = ""
        with (
            sent.open("rb") as given,
            received.open("wb") as taken,
            subprocess.Popen(
                words, stdin=given, stdout=taken, stderr=subprocess.PIPE, text=True, errors="replace"
            ) as run,
        ):
            assert run.stderr is not None
            try:
                for line in run.stderr:
                    last = line.strip() or last
                    say(f"{self.address}: {line.rstrip()}")
            except BaseException:
                run.kill()
                raise
        if run.returncode == _UNREACHED:
            raise MachineError(
                f"{self.address} cannot be reached: {last}", f"first make this work: ssh {self.address} true"
            )
        return run.returncode, last
