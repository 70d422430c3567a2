"""The tables in the documents say what the result files say: no number is typed by hand."""

from __future__ import annotations

import sys

import pytest
from repository import ROOT, shown

sys.path.insert(0, str(ROOT / "benchmarks"))

import tables


@pytest.mark.parametrize(("path", "text"), tables.rendered().items(), ids=lambda value: getattr(value, "name", ""))
def test_a_document_says_what_its_results_say(path, text):
    assert path.read_text(encoding="utf-8") == text, f"python benchmarks/tables.py renders {shown(path)}"


def test_a_table_goes_between_its_marks_and_nowhere_else():
    text = "before\n<!-- one -->\nold\n<!-- /one -->\nbetween\n<!-- two -->\nstays\n<!-- /two -->\nafter\n"
    changed = tables.between(text, "one", "new")
    assert changed == text.replace("old", "new")
    with pytest.raises(AssertionError, match="no place for three"):
        tables.between(text, "three", "new")
