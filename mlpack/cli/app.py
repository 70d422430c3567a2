"""The entry point: runs one command and turns whatever it raises into lines, a document and an exit code."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from mlpack.cli.commands import COMMANDS
from mlpack.cli.frame import CLICK_ERRORS, HELP_NAMES, Commands, as_usage_error
from mlpack.cli.screen import ReaderGone, Screen
from mlpack.errors import MlpackError

if TYPE_CHECKING:
    from types import FrameType

OUR_BUG = 70
INTERRUPTED = 130
READER_GONE = 141
TERMINATED = 143
_COMPLETION = "_MLPACK_COMPLETE"
_LEAVES_NO_LOG = {"-h", "--help", "--version", "--install-completion", "--show-completion"}
_EPILOG = "A first run:  mlpack optimize model.pt2 --data data.npz --int8"


class Terminated(BaseException):
    """SIGTERM as an exception, so that temporaries are removed on the way out."""


app = typer.Typer(
    cls=Commands,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    epilog=_EPILOG,
    context_settings=HELP_NAMES,
)


def _print_version(asked: bool) -> None:  # noqa: FBT001 - typer calls it with the flag's value
    if asked:
        import mlpack

        typer.echo(f"mlpack {mlpack.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    ctx: typer.Context,
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """From a trained PyTorch model to one you dare to put in production."""
    del version
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def main() -> NoReturn:
    """What the `mlpack` command starts."""
    sys.exit(run(sys.argv[1:]))


def run(words: list[str]) -> int:
    """Run one command line and give its exit code; nothing is raised.

    The whole command line is printed on, logged and, with --json, answered by exactly one document.
    """
    group = typer.main.get_command(app)
    if _COMPLETION in os.environ:
        return int(group.main(words, prog_name="mlpack", standalone_mode=False) or 0)
    flags = words[: words.index("--")] if "--" in words else words
    is_verbose = not {"-v", "--verbose"}.isdisjoint(flags)
    screen = Screen(json="--json" in flags, detail="verbose" if is_verbose else "normal")
    try:
        code = _judged(group, words, screen)
        screen.finish()
    except ReaderGone:
        _silence()
        code = READER_GONE
    if screen.log:
        screen.log.close(code)
    return code


def _judged(group: Any, words: list[str], screen: Screen) -> int:
    """The exit code of the command; its error is printed."""
    try:
        _install_sigterm()
        if words and _LEAVES_NO_LOG.isdisjoint(words):
            _open_log(screen, words)
        with group.make_context("mlpack", list(words), obj=screen) as context:
            group.invoke(context)
    except typer.Exit as finished:
        code = finished.exit_code
    except MlpackError as error:
        code = _failed(screen, error)
    except CLICK_ERRORS as error:
        code = _failed(screen, as_usage_error(error, words))
    except (KeyboardInterrupt, typer.Abort):
        code = _stopped(screen, "Interrupted", INTERRUPTED)
    except Terminated:
        code = _stopped(screen, "Terminated", TERMINATED)
    except Exception as bug:  # noqa: BLE001 - the one place: whatever comes here is a bug of ours
        code = _crashed(screen, bug)
    else:
        code = 0
    return code


def _crashed(screen: Screen, bug: Exception) -> int:
    trace = "".join(traceback.format_exception(bug))
    if screen.log:
        screen.log.write("traceback", trace)
    message = f"a bug of mlpack: {type(bug).__name__}: {bug}"
    hint = "please report it, with the log file below" if screen.log else "please report it"
    screen.failed({"kind": "Bug", "message": message, "hint": hint, "exit_code": OUR_BUG}, trace)
    return OUR_BUG


def _failed(screen: Screen, error: MlpackError) -> int:
    trace = "".join(traceback.format_exception(error))
    if screen.log:
        screen.log.write("traceback", trace)
    described = {
        "kind": error.kind, "message": error.message, "hint": error.hint, "exit_code": error.exit_code,
    }  # fmt: skip
    screen.failed(described, trace if screen.detail == "verbose" else "")
    return error.exit_code


def _stopped(screen: Screen, kind: str, code: int) -> int:
    hint = "the same command goes on from the last finished stage"
    screen.failed({"kind": kind, "message": kind.lower(), "hint": hint, "exit_code": code})
    return code


def _open_log(screen: Screen, words: list[str]) -> None:
    """Start the run's log; where none can be written, say so and go on: the command may not need to write."""
    import platform

    import mlpack
    from mlpack.core import installation
    from mlpack.core.runlog import RunLog
    from mlpack.core.settings import Settings, load_settings

    try:
        cache = load_settings(Path.cwd()).cache
    except MlpackError:
        # The command itself reports the broken settings; its log goes where it would go without them.
        cache = Path(os.environ["MLPACK_CACHE"]) if os.environ.get("MLPACK_CACHE") else Settings().cache
    try:
        screen.log = RunLog(cache, words[0] if words[0] in COMMANDS else "unknown")
    except MlpackError as error:
        screen.warn(f"no log of this run: {error.message}")
        return
    if other := installation.other_mlpack():
        screen.warn(f"PyPI's mlpack {other} is installed too and has our import name; see mlpack doctor")
    screen.log.write("argv", shlex.join(words))
    screen.log.write("folder", str(Path.cwd()))
    screen.log.write(
        "versions", f"mlpack {mlpack.__version__}, Python {platform.python_version()}, {platform.platform()}"
    )


def _install_sigterm() -> None:
    def stop(number: int, frame: FrameType | None) -> NoReturn:
        del number, frame
        raise Terminated

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)


def _silence() -> None:
    """Give Python's last flush somewhere to go when the reader of our output has left."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(nowhere, stream.fileno())
