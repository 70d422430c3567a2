"""What a notebook shows is what the command line prints, with every text escaped."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import numpy as np
import pytest

import mlpack
from mlpack.core.summary import Commands, Facts, Grid, Told, as_html
from mlpack.errors import ModelError, UsageError

HOSTILE = '<script>alert("1")</script>&amp;'


def words(html):
    return unescape(re.sub(r"<[^>]*>", " ", html)).split()


def test_every_text_is_escaped():
    parts = [HOSTILE, "", Facts([(HOSTILE, [HOSTILE])]), Commands([HOSTILE])]
    grid = Grid([HOSTILE, "n"], [[HOSTILE, 1], [None, 2]], title=HOSTILE, right=["n"])
    html = as_html([*parts, grid])
    assert "<script" not in html
    assert unescape(re.sub(r"<[^>]*>", "", html)).count(HOSTILE) == 7


def test_the_first_line_is_the_heading_and_numbers_stand_to_the_right():
    html = as_html(["", "verdict", "more", Grid(("a", "n"), [("x", 1)], right=("n",))])
    assert "<b>verdict</b>" in html
    assert "<b>more" not in html
    assert len(re.findall(r"text-align:right", html)) == 2


@pytest.mark.parametrize(
    ("words_of", "result"),
    [
        (("list",), mlpack.list_artifacts),
        (("show",), mlpack.show),
        (("diff", "tiny-mlp", "tiny-mlp@1"), lambda: mlpack.diff("tiny-mlp", "tiny-mlp@1")),
        (("explain",), mlpack.explain),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_notebook_shows_what_the_command_prints(cli, store, words_of, result):
    printed = cli(*words_of)
    assert printed.code == 0
    shown = words(result()._repr_html_())
    # A screen draws lines under the heads of tables, and breaks words that are longer than a column.
    told = [word for word in printed.err.split() if not set(word) <= set("─-╶")]
    assert "".join(sorted("".join(shown))) == "".join(sorted("".join(told)))


def test_predict_and_package_show_where_the_result_lies(store, place):
    np.savez(place / "rows.npz", features=np.ones((3, 8), np.float32))
    predicted = mlpack.predict(data="rows.npz", out="y.npz")
    assert str(place / "y.npz") in predicted._repr_html_()
    packaged = mlpack.package(runtime="fastapi", out="server")
    assert str(place / "server") in packaged._repr_html_()
    assert "<pre" in packaged._repr_html_()
    assert all(isinstance(each, Told) for each in (predicted, packaged))


def test_an_empty_store_says_how_it_is_filled(place):
    assert "mlpack optimize MODEL" in mlpack.list_artifacts()._repr_html_()


@pytest.mark.parametrize("word", ["data", "calibration", "metric", "factory"])
def test_objects_in_memory_are_refused_by_their_name(place, word):
    with pytest.raises(UsageError, match=f"{word} is a dict in memory") as caught:
        mlpack.optimize("model.pt2", **{word: {"x": np.ones(3)}})
    assert "file" in caught.value.hint or "numpy.savez" in caught.value.hint


def test_a_module_in_memory_is_refused_with_the_lines_that_save_it(place):
    import torch

    module = torch.nn.Linear(8, 2)
    for verb in (mlpack.optimize, mlpack.plan, mlpack.bench):
        with pytest.raises(UsageError, match="model is a Linear in memory") as caught:
            verb(module)
        assert "\n" not in str(caught.value.message)
        assert "torch.export.save" in caught.value.hint
    # The hint's own lines, run as they stand.
    names = {"torch": torch, "model": module, "example": torch.ones(3, 8)}
    exec(caught.value.hint.partition(", then")[0], names)  # noqa: S102
    assert (place / "model.pt2").stat().st_size > 0


def test_what_a_notebook_defines_is_refused_as_a_factory(place):
    with pytest.raises(ModelError, match="not there in the processes") as caught:
        mlpack.plan("__main__:model")
    assert "%%writefile" in caught.value.hint


def test_nothing_is_shown_outside_of_ipython(store, capsys):
    mlpack.explain()
    assert capsys.readouterr() == ("", "")


def test_paths_are_taken_as_well_as_texts(place):
    with pytest.raises(ModelError):
        mlpack.plan(Path("nowhere.pt2"))
