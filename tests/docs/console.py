"""Runs the commands of a page, as a reader would, and compares what they print with what the page shows.

The commands of all `console` blocks run in one shell, in their order. A command has to succeed, unless the next one
is `echo $?`. Each line that is shown below a command has to be printed by it, in that order: a number stands for any
number, `…` for any text, and a line of nothing but `…` for lines that are left out.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# A noisy machine's number may be a bound: <0.01, >1,000.
_ANY_NUMBER = r"[<>]?-?\d[\d,]*(\.\d+)?(e-?\d+)?"
_NUMBER = re.compile(rf"(?<![\w@.]){_ANY_NUMBER}")
_ASKS_FOR_THE_CODE = "echo $?"
# A network of its own has a loopback interface that is down.
_OFFLINE = """
import fcntl, os, socket, struct, sys
with socket.socket() as any_socket:
    flags = struct.unpack_from("h", fcntl.ioctl(any_socket, 0x8913, struct.pack("32s", b"lo")), 16)[0]
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", flags | 1))
os.execvp(sys.argv[1], sys.argv[1:])
"""


@dataclass(frozen=True)
class Command:
    """A command, and the lines that the page shows of its output."""

    text: str
    shown: tuple[str, ...]


def commands(page: str) -> list[Command]:
    """The commands of all blocks; one goes on after a backslash and within quotation marks."""
    found: list[Command] = []
    for block in _BLOCK.findall(page):
        text, shown = "", []
        goes_on = False
        for line in block.splitlines():
            if goes_on:
                text += "\n" + line
            elif line.startswith("$ "):
                if text:
                    found.append(Command(text, tuple(shown)))
                text, shown = line.removeprefix("$ "), []
            else:
                assert text, f"output before the first command: {line}"
                shown.append(line)
                continue
            goes_on = line.endswith("\\") or _is_open(text)
        found.append(Command(text, tuple(shown)))
    return found


def _is_open(text: str) -> bool:
    """Whether a quotation of the command is still to be closed."""
    try:
        shlex.split(text)
    except ValueError:
        return True
    return False


def missing(shown: tuple[str, ...], printed: str) -> str | None:
    """The first line shown that was not printed, at its place in the order."""
    lines = iter([" ".join(line.split()) for line in printed.splitlines()])
    for line in shown:
        wanted = _pattern(line)
        if line.strip() not in {"", "…"} and not any(wanted.fullmatch(each) for each in lines):
            return line
    return None


def _pattern(line: str) -> re.Pattern[str]:
    words = " ".join(line.split())
    pieces, end = [], 0
    for found in re.finditer(rf" ?… ?|{_NUMBER.pattern}", words):
        pieces += [re.escape(words[end : found.start()]), ".*" if "…" in found[0] else _ANY_NUMBER]
        end = found.end()
    return re.compile("".join([*pieces, re.escape(words[end:])]))


def isolated() -> list[str]:
    """What a command line begins with to run without a network; empty where this user may not ask for that."""
    for flags in ("-n", "-rn"):
        with contextlib.suppress(OSError):
            unshared = ["unshare", flags, sys.executable, "-c", _OFFLINE]
            if subprocess.run([*unshared, "true"], capture_output=True, check=False).returncode == 0:
                return unshared
    return []


def run(todo: list[Command], folder: Path, environment: dict[str, str], limit_s: float) -> list[tuple[int, str]]:
    """Exit code and output of each command up to the first that failed; all that they started is ended."""
    place = folder.parent / "printed"
    place.mkdir()
    script = folder.parent / "page.sh"
    script.write_text("".join(_lines(todo, place)), encoding="utf-8")
    process = subprocess.Popen(
        [*isolated(), "bash", str(script)],
        cwd=folder, env=environment, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(limit_s)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    codes = [path.read_text() for index in range(len(todo)) if (path := place / f"{index}.code").exists()]
    return [(int(code), (place / f"{index}.txt").read_text(errors="replace")) for index, code in enumerate(codes)]


def _lines(todo: list[Command], place: Path) -> list[str]:
    found = []
    for index, each in enumerate(todo):
        found.append(f"{{ {each.text}\n}} > {place}/{index}.txt 2>&1\ncode=$?\necho $code > {place}/{index}.code\n")
        found.append("(exit $code)\n" if may_fail(todo, index) else "[ $code = 0 ] || exit $code\n")
    return found


def may_fail(todo: list[Command], index: int) -> bool:
    """Whether the page asks for the command's exit code."""
    return index + 1 < len(todo) and todo[index + 1].text == _ASKS_FOR_THE_CODE
