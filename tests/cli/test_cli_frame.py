"""The frame: light start, exit codes, one document in all cases, logs, signals, broken pipes."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import pytest
import typer

import mlpack
from mlpack.cli import commands
from mlpack.core.runlog import KEPT_FILES, RunLog, list_logs
from mlpack.errors import GateInconclusive

MLPACK = [sys.executable, "-c", "from mlpack.cli.app import main; main()"]
HEAVY = {
    "torch", "onnx", "onnxruntime", "transformers", "openvino", "scipy", "numpy", "pydantic", "rich", "yaml",
}  # fmt: skip


@pytest.mark.parametrize("word", ["--help", "--version"])
def test_help_and_version_import_nothing_heavy(process, word):
    looking = f"""
import sys
from mlpack.cli.app import run
code = run([{word!r}])
print(code, *sorted({{name.partition('.')[0] for name in sys.modules}} & {HEAVY!r}), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", looking], capture_output=True, text=True, check=True)
    assert done.stderr.split() == ["0"]
    assert done.stdout.startswith("Usage: mlpack" if word == "--help" else f"mlpack {mlpack.__version__}")


def test_help_lists_every_command_in_eighty_columns(cli):
    done = cli("--help")
    assert done.code == 0
    for name in commands.COMMANDS:
        assert re.search(rf"^  {name}\s", done.out, re.MULTILINE), name
    assert max(map(len, done.out.splitlines())) <= 80


@pytest.mark.parametrize("name", list(commands.COMMANDS))
def test_every_command_has_help_with_the_flags_that_all_have(cli, name):
    done = cli(name, "--help")
    assert done.code == 0
    assert {"--json", "--quiet", "--verbose", "--help"} <= set(re.findall(r"--[a-z]+", done.out))
    assert len(re.findall("--json", done.out)) == 1


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["lst"], "did you mean 'list'?"),
        (["list", "--jsno"], "did you mean --json? (mlpack list --help lists them all)"),
        (["list", "--store"], "mlpack list --help"),
        (["tag"], "mlpack tag --help"),
        (["list", "a", "b"], "mlpack list --help"),
        (["gc", "--older-than", "x"], "mlpack gc --help"),
    ],
)
def test_wrong_usage_is_exit_2_with_a_hint_in_both_forms(cli, words, hint):
    done = cli(*words)
    assert done.code == 2
    lines = done.err.splitlines()
    assert lines[0].startswith("error: ")
    assert lines[1] == f"hint: {hint}"
    assert lines[2].startswith("log: ")
    assert done.out == ""
    with_json = cli(words[0], "--json", *words[1:])
    assert with_json.code == 2
    error = with_json.document["error"]
    assert (error["kind"], error["exit_code"], error["hint"]) == ("UsageError", 2, hint)


def test_an_error_of_the_user_shows_a_traceback_only_with_verbose(cli, store):
    assert "Traceback" not in cli("show", "nothing").err
    assert "Traceback" in cli("show", "nothing", "--verbose").err


def add_command(monkeypatch, function):
    module = type(sys)("mlpack_test_command")
    module.command = function
    monkeypatch.setitem(sys.modules, "mlpack_test_command", module)
    monkeypatch.setitem(commands.COMMANDS, "probe", commands.Entry("mlpack_test_command:command", "A probe."))


def test_a_bug_of_ours_is_70_with_traceback_and_log_and_a_document(cli, monkeypatch):
    def command(screen) -> None:
        raise ZeroDivisionError("by us")

    add_command(monkeypatch, command)
    done = cli("probe", "--json")
    assert done.code == 70
    assert done.document["error"]["message"] == "a bug of mlpack: ZeroDivisionError: by us"
    assert "Traceback" in done.err
    log = done.document["error"]["log"]
    assert f"log: {log}\n" in done.err
    text = Path(log).read_text()
    assert "ZeroDivisionError" in text
    assert text.rstrip().endswith("exit 70")


def test_a_result_and_then_an_error_are_one_document(cli, monkeypatch):
    def command(screen) -> None:
        screen.result({"name": "x", "bad": float("nan")}, "told")
        raise GateInconclusive("cannot tell", "more samples")

    add_command(monkeypatch, command)
    done = cli("probe", "--json")
    assert done.code == 6
    assert done.document["name"] == "x"
    assert done.document["bad"] is None
    assert done.document["error"]["kind"] == "GateInconclusive"


def test_ctrl_c_is_130_and_still_one_document(cli, monkeypatch):
    def command(screen) -> None:
        raise KeyboardInterrupt

    add_command(monkeypatch, command)
    done = cli("probe", "--json")
    assert done.code == 130
    assert done.document["error"]["exit_code"] == 130


def test_a_broken_pipe_inside_a_command_is_a_bug_not_silence(cli, monkeypatch):
    def command(screen) -> None:
        raise BrokenPipeError

    add_command(monkeypatch, command)
    assert cli("probe").code == 70


def test_options_with_typer_annotations_reach_a_command(cli, monkeypatch):
    def command(screen, size: Annotated[int, typer.Option("--size", min=1)] = 3) -> None:
        screen.result({"size": size}, f"size {size}")

    add_command(monkeypatch, command)
    assert cli("probe", "--size", "5", "--json").document == {"size": 5}
    assert cli("probe").err == "size 3\n"
    assert cli("probe", "--size", "0").code == 2


SLOW = """
import sys, time
from mlpack.cli import commands
from mlpack.cli.app import main
module = type(sys)("slow")
def command(screen):
    try:
        print("started", file=sys.stderr, flush=True)
        time.sleep(30)
    finally:
        print("cleaned", file=sys.stderr, flush=True)
module.command = command
sys.modules["slow"] = module
commands.COMMANDS["slow"] = commands.Entry("slow:command", "")
sys.argv = ["mlpack", "slow", "--json"]
main()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_clean_up_and_leave_their_code_and_one_document(place, number, code):
    child = subprocess.Popen([sys.executable, "-c", SLOW], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stderr.readline() == "started\n"
    child.send_signal(number)
    out, err = child.communicate(timeout=300)
    assert child.returncode == code
    assert json.loads(out)["error"]["exit_code"] == code
    assert err.startswith("cleaned\n")
    assert "Traceback" not in err


def test_a_reader_that_leaves_is_no_error(place):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*MLPACK, "targets", "--json"], stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert done.returncode == 141
    assert done.stderr == b""


def test_without_a_terminal_there_are_no_control_characters(process):
    done = process("targets", env={**os.environ, "FORCE_COLOR": "1"})
    assert done.code == 0
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", done.err + done.out)
    assert max(map(len, done.err.splitlines())) <= 80


def test_control_characters_in_what_users_name_are_not_obeyed(cli, store):
    done = cli("show", "\x1b[31mred")
    assert "\x1b" not in done.err
    assert "\\x1b[31mred" in done.err


PROGRESS = """
from mlpack.cli.screen import Screen
with Screen().progress() as progress:
    for done in range(4):
        progress.say("quantizing", done, 4)
    progress.stage_done("quantize  1.2 s")
"""


def on_terminal(code, **more):
    main, side = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", code], stderr=side, stdout=subprocess.DEVNULL,
        env={**os.environ, "TERM": "xterm", **more},
    )  # fmt: skip
    os.close(side)
    seen = b""
    while True:
        try:
            seen += os.read(main, 65536)
        except OSError:
            break
    os.close(main)
    assert child.wait() == 0
    return seen.decode()


def test_a_terminal_gets_a_bar_and_a_line_per_stage(place):
    seen = on_terminal(PROGRESS)
    assert "quantizing" in seen
    assert "quantize  1.2 s" in seen
    assert "\x1b[" in seen


def test_no_color_takes_the_colours_away(place):
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", on_terminal(PROGRESS, NO_COLOR="1"))
    assert on_terminal(PROGRESS, TERM="dumb") == "quantize  1.2 s\r\n"


def test_elsewhere_progress_is_one_line_per_stage(place):
    done = subprocess.run([sys.executable, "-c", PROGRESS], capture_output=True, text=True, check=True)
    assert done.stderr == "quantize  1.2 s\n"


def test_completion_of_commands_and_of_options(process):
    def complete(text, position):
        told = {"_MLPACK_COMPLETE": "complete_bash", "COMP_WORDS": text, "COMP_CWORD": str(position)}
        return process(env={**os.environ, **told}).out.split()

    assert complete("mlpack t", 1) == ["tag", "targets"]
    assert complete("mlpack gc --dr", 2) == ["--dry-run"]


def test_completion_can_be_installed(process):
    shown = process(
        "--show-completion", "bash", env={**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    )
    assert shown.code == 0
    assert "_MLPACK_COMPLETE" in shown.out


def test_every_run_leaves_a_log_and_logs_shows_it(cli, place):
    cli("targets", "a100")
    cli("show", "nothing")
    entries = list_logs(place / "cache")
    assert {(entry.command, entry.exit_code) for entry in entries} == {("targets", 0), ("show", 2)}
    text = next(entry.path for entry in entries if entry.command == "show").read_text()
    assert "argv show nothing" in text
    assert f"mlpack {mlpack.__version__}" in text
    assert "UsageError" in text


def test_old_logs_and_all_but_the_newest_hundred_are_swept(place):
    folder = place / "cache" / "logs"
    folder.mkdir(parents=True)
    dead = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True, check=True).stdout.strip()
    for second in range(KEPT_FILES + 20):
        (folder / f"20261101T{second // 60:04d}{second % 60:02d}-list-{dead}.log").write_text("")
    old = folder / f"20261231T000000-list-{dead}.log"
    old.write_text("")
    os.utime(old, (0, time.time() - 31 * 86_400))
    (folder / "notes.txt").write_text("not ours")
    RunLog(place / "cache", "list").close(0)
    assert len(list_logs(place / "cache")) <= KEPT_FILES
    assert not old.exists()
    assert (folder / "notes.txt").exists()


def test_a_cache_that_cannot_be_written_costs_the_log_not_the_command(process):
    done = process("targets", "a100", "--json", env={**os.environ, "MLPACK_CACHE": "/sys/mlpack"})
    assert done.code == 0
    assert done.document["targets"][0]["name"] == "a100"
    assert done.err.startswith("warning: no log of this run")


def test_a_broken_settings_file_is_reported_by_the_command(cli, place):
    (place / "mlpack.toml").write_text('stroe = "x"\n')
    done = cli("list")
    assert done.code == 2
    assert "did you mean 'store'?" in done.err
