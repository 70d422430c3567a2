"""`mlpack diff A B --out FILE.html`: what counts first, then every difference; in a real browser too."""

from __future__ import annotations

import pytest
from browser import CHROMIUM, LOCAL, Browser
from hand_made import FULL, latency, publish_by_hand
from pages import Page

HOSTILE = "<img src=x onerror='window.hacked=1'>"


@pytest.fixture
def two(place):
    store = place / "artifacts"
    publish_by_hand(store, **FULL)
    slower = [latency(1, optimized={"p50": 6.4, "p99": None, "n": 60, "launches": 5}, speedup=2.67)]
    publish_by_hand(store, **{**FULL, "latency": slower}, accuracy__optimized=0.7, model__numerics="bf16")
    return store


def differ(cli, place, *words):
    done = cli("diff", "reviews@1", "reviews@2", "--out", "diff.html", *words)
    return done, Page(place / "diff.html", (place / "diff.html").read_text(encoding="utf-8"))


def test_the_page_has_what_counts_and_every_difference(cli, two, place):
    done, page = differ(cli, place)
    assert done.code == 0, done.err
    assert str(place / "diff.html") in done.err
    document = cli("diff", "reviews@1", "reviews@2", "--json").document
    assert "reviews@1 → reviews@2" in page.text
    assert "2.67 ×" in page.text
    assert {"model", "accuracy", "latency"} <= page.sections
    for each in document["differences"]:
        assert each["what"] in page.text, each
        assert each["part"] in page.sections
    assert "script" not in page.raw


def test_a_page_that_is_there_is_kept_unless_forced(cli, two, place):
    differ(cli, place)
    done, _ = differ(cli, place)
    assert done.code == 2
    assert "--force" in done.err
    assert differ(cli, place, "--force")[0].code == 0
    inside = cli("diff", "reviews@1", "reviews@2", "--out", str(two / "reviews" / "1" / "diff.html"))
    assert inside.code == 2
    assert "never changes" in inside.err


def test_equal_artifacts_have_a_page_that_says_so(cli, two, place):
    done = cli("diff", "reviews@1", "reviews@1", "--out", "same.html")
    assert done.code == 0
    assert "do not differ in anything that counts" in (place / "same.html").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: see ci/debian.txt")
@pytest.mark.parametrize("width", [1200, 320])
def test_it_is_readable_in_a_browser_and_runs_nothing(cli, place, tmp_path, width):
    publish_by_hand(place / "artifacts", **FULL)
    publish_by_hand(place / "artifacts", **FULL, source__path=HOSTILE, environment={"torch": HOSTILE + "W" * 80})
    _, page = differ(cli, place)
    browser = Browser(tmp_path / "profile")
    try:
        browser.open(page.path, width=width)
        assert browser.complaints == []
        assert [url for url in browser.requests if not url.startswith(LOCAL)] == []
        overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert browser.evaluate(overflow) == 0
        assert browser.evaluate("window.hacked === undefined")
        browser.screenshot(tmp_path / "page.png")
    finally:
        browser.close()
