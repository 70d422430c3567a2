"""Every tutorial does what it says: its commands are run offline in a copy of the sample's folder."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from console import Command, commands, isolated, may_fail, missing, run

ROOT = Path(__file__).parents[2]
PAGES = sorted(path for path in (ROOT / "docs" / "tutorials").glob("*.md") if path.stem != "README")
# A page takes one or two minutes of an idle machine; other tests may share this one.
LIMIT_S = 1200
# Where mlpack is not the one that is installed: this checkout's, as this Python runs it.
PROGRAMS = {
    "python": 'exec {python} "$@"\n',
    "mlpack": 'exec {python} -c "from mlpack.cli.app import main; main()" "$@"\n',
}


def environment(folder):
    programs = folder / "bin"
    programs.mkdir()
    for name, text in PROGRAMS.items():
        (programs / name).write_text(f"#!/bin/sh\n{text.format(python=sys.executable)}")
        (programs / name).chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLPACK_", "PYTHON"))}
    return {
        **kept,
        "PATH": os.pathsep.join([str(programs), os.environ["PATH"]]),
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "MLPACK_CACHE": str(folder / "cache"),
        "LC_ALL": "C.UTF-8",
    }


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_tutorial_does_what_it_says(page, tmp_path):
    todo = commands(page.read_text(encoding="utf-8"))
    folder = tmp_path / page.stem
    shutil.copytree(ROOT / "sample_models" / page.stem, folder, ignore=shutil.ignore_patterns("__pycache__"))
    ended = run(todo, folder, environment(tmp_path), LIMIT_S)
    for index, (command, (code, printed)) in enumerate(zip(todo, ended, strict=False)):
        assert code == 0 or may_fail(todo, index), f"$ {command.text}\nexit {code}\n{printed}"
        line = missing(command.shown, printed)
        assert line is None, f"$ {command.text}\nnot printed: {line}\nbut:\n{printed}"
    assert len(ended) == len(todo), f"not done after {LIMIT_S} s: {todo[len(ended)].text}"


def test_every_sample_model_has_a_tutorial_that_the_index_lists():
    samples = {path.parent.name for path in (ROOT / "sample_models").glob("*/README.md")}
    assert {page.stem for page in PAGES} == samples
    index = (ROOT / "docs" / "tutorials" / "README.md").read_text(encoding="utf-8")
    assert [page.stem for page in PAGES if f"]({page.name})" not in index] == []


PAGE = """
```sh
not run
```
```console
$ echo one; \\
  echo 2.5 ms and 3 more
one
…
0.1 ms and … more
$ echo "two
lines"
two
$ exit_with() { return $1; }; exit_with 3
$ echo $?
3
```
"""


def test_commands_go_on_over_lines_and_keep_what_is_shown():
    first, quoted, second, third = commands(PAGE)
    assert first == Command("echo one; \\\n  echo 2.5 ms and 3 more", ("one", "…", "0.1 ms and … more"))
    assert quoted == Command('echo "two\nlines"', ("two",))
    assert (second.text, second.shown) == ("exit_with() { return $1; }; exit_with 3", ())
    assert third == Command("echo $?", ("3",))


@pytest.mark.parametrize(
    ("shown", "printed", "is_there"),
    [
        ("P50 1.5 → 0.2 ms", "  P50 12 → 3e-05 ms", True),
        ("P50 1.5 ms", "P99 1.5 ms", False),
        ("int8 (60%)", "int4 (60%)", False),
        ("net@1 lies in …", "net@2 lies in x", False),
        ("written to …/y.npz", "written to /tmp/y.npz", True),
        ("PASS", "LIKELY", False),
        ("errors 1 → 2", "errors 1 → 2 and more", False),
        ("drop 0.25pt [-1.2, 3]", "drop -0.125pt [-0.5, 1,200]", True),
        ("3.4 × [2.8, 4.1] at batch 8", "2.85 × [<0.01, >1,000] at batch 8", True),
    ],
)
def test_numbers_stand_for_numbers_and_words_for_themselves(shown, printed, is_there):
    assert (missing((shown,), printed) is None) is is_there


def test_lines_have_to_come_in_the_order_shown():
    assert missing(("a", "b"), "a\nx\nb\n") is None
    assert missing(("b", "a"), "a\nb\n") == "a"


def test_one_shell_runs_all_and_stops_at_a_failure(tmp_path):
    folder = tmp_path / "here"
    folder.mkdir()
    todo = [*commands(PAGE), Command("cd ..; name=x", ()), Command('echo "$name $PWD"', ()), Command("false", ())]
    ended = run([*todo, Command("echo never", ())], folder, dict(os.environ), 20)
    assert [code for code, _ in ended] == [0, 0, 3, 0, 0, 0, 1]
    assert ended[3][1] == "3\n"
    assert ended[5][1] == f"x {tmp_path}\n"


@pytest.mark.skipif(not isolated(), reason="this user may not ask for a network of its own")
def test_the_shell_has_a_loopback_and_nothing_else(tmp_path):
    folder = tmp_path / "here"
    folder.mkdir()
    python = f'{sys.executable} -c "import socket as s; '
    inside = python + "a = s.create_server(('127.0.0.1', 0)); s.create_connection(a.getsockname())\""
    outside = python + "s.create_connection(('192.0.2.1', 80), timeout=5)\""
    todo = [Command(inside, ()), Command(outside, ())]
    (first, _), (second, printed) = run(todo, folder, dict(os.environ), 60)
    assert (first, second) == (0, 1)
    assert "unreachable" in printed
