"""The frame around every command: lazy loading, the flags that all commands have, usage errors as ours."""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from mlpack.cli.commands import COMMANDS
from mlpack.errors import UsageError, unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mlpack.cli.screen import Screen

# typer carries click's exceptions; where they lie differs by version, their family tree does not.
CLICK_ERRORS: type[Exception] = next(each for each in typer.BadParameter.__mro__ if each.__name__ == "ClickException")
_PLAIN = {"rich_markup_mode": None, "add_completion": False, "pretty_exceptions_enable": False}
HELP_NAMES = {"help_option_names": ["-h", "--help"]}

Json = Annotated[bool, typer.Option("--json", help="Write one JSON document to stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress lines.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="More lines; tracebacks of errors.")]


class Commands(TyperGroup):
    """The group of all commands. Help and completion see names; only what is run is imported."""

    def list_commands(self, ctx: Any) -> list[str]:
        """All names, in the order of the table."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A stand-in with the summary, enough for help and completion."""
        del ctx
        entry = COMMANDS.get(cmd_name)
        return entry and _stand_in(cmd_name, entry.summary)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The real command, imported now.

        Raises:
            UsageError: no such command (the hint has the nearest right spelling).
        """
        name, *rest = args
        if name in COMMANDS:
            return name, load(name), rest
        if ctx.resilient_parsing:
            return None, None, rest
        raise unknown("command", name, COMMANDS)


def load(name: str) -> Any:
    """The typer command of this name, with the flags that all commands have."""
    entry = COMMANDS[name]
    module, _, attribute = entry.reference.partition(":")
    return _command(name, with_flags(getattr(importlib.import_module(module), attribute)))


def with_flags(function: Callable[..., None]) -> Callable[..., None]:
    """`function(screen, …)` as typer wants it: the screen is the context's, --json and others are added."""
    screen_name = next(iter(inspect.signature(function).parameters))
    # The screen's type is for type checkers only; evaluating it would force every command to import it.
    function.__annotations__ = {
        name: annotation for name, annotation in function.__annotations__.items() if name != screen_name
    }
    signature = inspect.signature(function, eval_str=True)
    _, *own = signature.parameters.values()
    added = [
        inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context),
        inspect.Parameter("json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Json),
        inspect.Parameter("quiet", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Quiet),
        inspect.Parameter("verbose", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Verbose),
    ]

    @functools.wraps(function)
    def run(*, ctx: typer.Context, json: bool, quiet: bool, verbose: bool, **given: Any) -> None:
        screen: Screen = ctx.obj
        screen.json = json
        screen.detail = "verbose" if verbose else "quiet" if quiet else "normal"
        function(screen, **given)

    parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in (*own, *added)]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters} | {"return": None}
    return run


def as_usage_error(error: Exception, words: Sequence[str]) -> UsageError:
    """An error of the command line's parser in our form: what is wrong, and the nearest right spelling."""
    message = str(getattr(error, "message", "") or error)
    told: str = error.format_message() if hasattr(error, "format_message") else message
    context = getattr(error, "ctx", None)
    named = f"mlpack {words[0]}" if words and words[0] in COMMANDS else "mlpack"
    command = context.command_path if context else named
    hint = f"{command} --help"
    option = getattr(error, "option_name", None)
    if option and hasattr(error, "possibilities"):
        told = f"no such option: {option}"
        near = difflib.get_close_matches(option, option_names(context), n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}? ({command} --help lists them all)" if near else hint
    told = told.strip().splitlines()[0].rstrip(".")
    return UsageError(told[:1].lower() + told[1:], hint)


def option_names(context: Any) -> Sequence[str]:
    """The options that the command of this context takes."""
    parameters = context.command.params if context else []
    return [*(name for parameter in parameters for name in parameter.opts if name.startswith("--")), "--help"]


@functools.cache
def _stand_in(name: str, summary: str) -> Any:
    def nothing() -> None:
        """Never run."""

    nothing.__doc__ = summary
    return _command(name, nothing)


def _command(name: str, function: Callable[..., None]) -> Any:
    app = typer.Typer(**_PLAIN)  # type: ignore[arg-type]
    app.command(name, context_settings=dict(HELP_NAMES))(function)
    return typer.main.get_command(app)
