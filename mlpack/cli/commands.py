"""The commands: their names, where their functions lie, and one line of help. Loaded when first asked for.

A new command is a file with `def command(screen: Screen, …typer parameters…) -> None` and one line here.
"""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """Where a command's function lies, and its line in `mlpack --help`."""

    reference: str
    summary: str


COMMANDS: dict[str, Entry] = {
    "init": Entry("mlpack.cli.init:command", "Look at a model and data, write mlpack.toml."),
    "optimize": Entry("mlpack.cli.optimize:command", "Make a model smaller and faster, prove it, publish it."),
    "plan": Entry("mlpack.cli.plan:command", "Say what would run, what is kept, and what this machine lacks."),
    "bench": Entry("mlpack.cli.bench:command", "Time models in turns, with intervals and components."),
    "build": Entry("mlpack.cli.build:command", "Finish an artifact on the machine that it is for."),
    "predict": Entry("mlpack.cli.predict:command", "Run an artifact's model over data and keep its outputs."),
    "package": Entry("mlpack.cli.package:command", "Lay an artifact out for a server: Triton, FastAPI, TorchServe."),
    "check": Entry("mlpack.cli.check:command", "Start a package's server and hold its answers to the recorded ones."),
    "serve": Entry("mlpack.cli.serve:command", "Serve an artifact on this machine, until it is stopped."),
    "convert": Entry("mlpack.cli.convert:command", "Write a model as a Core ML or LiteRT file."),
    "gate": Entry("mlpack.cli.gate:command", "The CI step: fail where an artifact is worse than a baseline."),
    "list": Entry("mlpack.cli.list_artifacts:command", "List what the store holds."),
    "show": Entry("mlpack.cli.show:command", "Show what an artifact is and how it was proven."),
    "report": Entry("mlpack.cli.report:command", "Write an artifact's report as one HTML page."),
    "explain": Entry("mlpack.cli.explain:command", "Say what costs accuracy and time, and what to try."),
    "diff": Entry("mlpack.cli.diff:command", "Show what differs between two artifacts."),
    "tag": Entry("mlpack.cli.tag:command", "Point a tag, such as prod, at a version."),
    "verify": Entry("mlpack.cli.verify:command", "Check that no file of an artifact or package has changed."),
    "save": Entry("mlpack.cli.save:command", "Write an artifact as one file, to carry elsewhere."),
    "load": Entry("mlpack.cli.load:command", "Take a saved artifact into the store."),
    "rm": Entry("mlpack.cli.rm:command", "Remove a version from the store."),
    "gc": Entry("mlpack.cli.gc:command", "Remove leftovers and cached work that nothing refers to."),
    "targets": Entry("mlpack.cli.targets:command", "List the hardware that models can be made for."),
    "doctor": Entry("mlpack.cli.doctor:command", "Check this machine: libraries, CPU, disk space."),
    "recipes": Entry("mlpack.cli.recipes:command", "List the recipes that come with mlpack."),
    "logs": Entry("mlpack.cli.logs:command", "List the last runs, or print the log of one."),
}
