"""Writes commands/*.md, python.md and troubleshooting.md beside this file, from the source itself."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

import mlpack
from mlpack.api.wanted import Wanted
from mlpack.cli.commands import COMMANDS
from mlpack.cli.frame import load
from mlpack.errors import KINDS

HERE = Path(__file__).parent
_EVERYWHERE = ("json", "quiet", "verbose")
_GENERATED = "<!-- Written by docs/write_pages.py: change the command, not this page. -->\n"


def pages() -> dict[str, str]:
    """The text of every page by its path below docs/."""
    commands = {f"commands/{name}.md": _command_page(name) for name in COMMANDS}
    whole = {"commands/README.md": _index(), "python.md": _python_page(), "troubleshooting.md": _troubleshooting()}
    return {**commands, **whole}


def _index() -> str:
    rows = [f"| [{name}]({name}.md) | {entry.summary} |" for name, entry in COMMANDS.items()]
    everywhere = [f"| {_names(each)} | {each.help} |" for each in load("list").params if each.name in _EVERYWHERE]
    return "\n".join(
        [
            _GENERATED,
            "# Commands",
            "",
            "| command | what it does |",
            "|---|---|",
            *rows,
            "",
            "Every command also takes:",
            "",
            "| option | what it does |",
            "|---|---|",
            *everywhere,
            "",
        ]
    )


def _command_page(name: str) -> str:
    command = load(name)
    parameters = [each for each in command.params if each.name not in _EVERYWHERE and each.name != "help"]
    arguments = [each for each in parameters if each.param_type_name == "argument"]
    options = [each for each in parameters if each.param_type_name == "option"]
    words = " ".join(["mlpack", name, *(_metavar(each) for each in arguments), "[OPTIONS]" if options else ""]).rstrip()
    lines = [_GENERATED, f"# mlpack {name}", "", f"    {words}", "", _prose(command.help or ""), ""]
    if arguments:
        lines += ["| argument | what it is |", "|---|---|"]
        lines += [f"| `{_cell(_metavar(each))}` | {_cell(getattr(each, 'help', '') or '')} |" for each in arguments]
        lines.append("")
    if options:
        lines += ["| option | what it does |", "|---|---|"]
        lines += [f"| {_names(each)} | {_cell(each.help or '')}{_default(each)} |" for each in options]
        lines.append("")
    return "\n".join(lines)


def _metavar(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


def _names(option: Any) -> str:
    value = "" if option.is_flag else f" {_metavar(option)}"
    return ", ".join(
        f"`{name}{value if name.startswith('--') else ''}`" for name in (*option.opts, *option.secondary_opts)
    )


def _default(option: Any) -> str:
    if option.is_flag or option.default in {None, ""} or callable(option.default):
        return ""
    return f" (default: {_cell(str(option.default))})"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _prose(text: str) -> str:
    return inspect.cleandoc(text.replace("\b", "").replace("\f", ""))


def _python_page() -> str:
    lines = [
        _GENERATED,
        "# mlpack in Python",
        "",
        "Every command is a function of the package; it takes what the flags say, and gives an object that has what",
        "`--json` prints. Errors that a user can fix are in `mlpack.errors`: each has a `message` and a `hint`.",
        "",
        "In a notebook a function that takes a `reporter` and is given none shows a progress bar, and what it gives is",
        "shown as a table, in the words of the command line. Processes of their own do the work and never run the",
        "notebook again; so models and data are handed over as files, and what a cell defines is written to one first",
        "(`%%writefile model.py`, then `model.py:function`; or `torch.export.save`).",
        "",
    ]
    for name in mlpack.__all__:
        if name == "__version__":
            continue
        function = getattr(mlpack, name)
        lines += [
            f"## mlpack.{name}",
            "",
            "```python",
            _signature(name, function),
            "```",
            "",
            _prose(function.__doc__ or ""),
            "",
        ]
    return "\n".join(lines)


def _signature(name: str, function: Any) -> str:
    """The call with one parameter a line; the keywords of `Unpack[Wanted]` one by one."""
    lines = [f"{name}("]
    keyword_only = False
    for each in inspect.signature(function).parameters.values():
        if each.kind is each.VAR_KEYWORD:
            lines += [f"    {word}: {_words(kind)} = …," for word, kind in Wanted.__annotations__.items()]
            continue
        if each.kind is each.KEYWORD_ONLY and not keyword_only:
            keyword_only = True
            lines.append("    *,")
        default = "" if each.default is each.empty else f" = {each.default!r}"
        lines.append(f"    {each.name}: {_words(each.annotation)}{default},")
    return "\n".join([*lines, f") -> {_words(inspect.signature(function).return_annotation)}"])


def _words(annotation: Any) -> str:
    return str(getattr(annotation, "__forward_arg__", annotation))


def _troubleshooting() -> str:
    lines = [
        _GENERATED,
        "# When mlpack refuses",
        "",
        "Every error says what is wrong and, after `hint:`, what to do. `mlpack logs` has the whole output of a run,",
        "`-v` shows the traceback. Below is every error that mlpack raises, by kind; `…` stands for what it fills in.",
        "",
    ]
    told = _raised()
    for name, kind in KINDS.items():
        rows = [f"| {_cell(message)} | {_cell(hint)} |" for message, hint in sorted(set(told.get(name, [])))]
        lines += [f"## {name}: exit {kind.exit_code}", "", f"{kind.__doc__}", ""]
        lines += ["| it says | what to do |", "|---|---|", *rows, ""] if rows else []
    return "\n".join(lines)


def _raised() -> dict[str, list[tuple[str, str]]]:
    """Message and hint of every error that the source raises with words of its own, by kind."""
    found: dict[str, list[tuple[str, str]]] = {}
    for file in sorted(Path(mlpack.__file__).parent.rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        texts = _constants(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in KINDS:
                message, hint, *_ = (*(_text(each, texts) for each in node.args), "", "")
                if message.strip("… "):
                    found.setdefault(node.func.id, []).append((message.partition("\n")[0], hint))
    return found


def _constants(tree: ast.Module) -> dict[str, str]:
    """The texts that a module gives a name."""
    return {
        target.id: str(node.value.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def _text(node: ast.expr, texts: dict[str, str]) -> str:
    """A string as it is written in the source, with … for what is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.Name):
        return texts.get(node.id, "…")
    if isinstance(node, ast.FormattedValue):
        return _text(node.value, texts)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(each, texts) for each in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left, texts) + _text(node.right, texts)
    return "…"


def main() -> None:
    """Write every page."""
    for name, text in pages().items():
        (HERE / name).parent.mkdir(exist_ok=True)
        (HERE / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
