"""A store of artifacts made by hand, and the command that renders them."""

from __future__ import annotations

import html
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from hand_made import publish_by_hand


@dataclass
class Page:
    """A rendered page: its text as written, and as people read it."""

    path: Path
    raw: str

    @property
    def text(self) -> str:
        body = re.sub(r"<(script|style)\b.*?</\1>", " ", self.raw, flags=re.DOTALL)
        return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())

    @property
    def headings(self) -> list[str]:
        return [html.unescape(each) for each in re.findall(r"<h2>(.*?)</h2>", self.raw)]

    @property
    def sections(self) -> set[str]:
        return set(re.findall(r'<section id="(\w+)"', self.raw))

    @property
    def figures(self) -> dict:
        found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', self.raw, re.DOTALL)
        return json.loads(found[1]) if found else {}


@dataclass
class Ended:
    code: int
    out: str
    err: str


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("MLPACK_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("MLPACK_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def cli(place, capsys):
    from mlpack.cli.app import run

    def call(*words: str) -> Ended:
        capsys.readouterr()
        code = run(list(words))
        return Ended(code, *capsys.readouterr())

    return call


@pytest.fixture
def rendered(place, cli):
    """Publish an artifact that is made by hand and render it with the command."""

    def call(timed=None, reports=None, **changes) -> Page:
        stored = publish_by_hand(place / "artifacts", timed, reports, **changes)
        done = cli("report", f"{stored.artifact.name}@{stored.artifact.version}", "--out", "page.html", "--force")
        assert done.code == 0, done.err
        return Page(place / "page.html", (place / "page.html").read_text(encoding="utf-8"))

    return call
