"""The page in a real browser: drawn, quiet, alone, and readable on a phone, in the dark and on paper."""

from __future__ import annotations

import pytest
from browser import CHROMIUM, LOCAL, Browser
from hand_made import FULL, candidate, timings

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: see ci/debian.txt")]

HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror='window.hacked=2'>" + "W" * 80
# Pixels of a canvas that are neither see-through nor all of one colour.
COLOURS = """
[...document.querySelectorAll("canvas")].map((canvas) => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const found = new Set();
  for (let at = 0; at < data.length; at += 4) if (data[at + 3] > 200) found.add(data.slice(at, at + 3).join());
  return [...found];
})
"""
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
BRIGHTNESS = "getComputedStyle(document.documentElement).backgroundColor.match(/\\d+/g).reduce((a, b) => +a + +b)"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture
def page(rendered):
    return rendered(timings(), **FULL).path


def colour(name):
    """An expression: a colour of the style sheet as canvas pixels say it."""
    return f"""
        (() => {{
          const hex = getComputedStyle(document.documentElement).getPropertyValue("--{name}").trim();
          return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)).join();
        }})()
    """


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 360, 320])
def test_it_is_drawn_without_a_complaint_and_asks_for_nothing(browser, page, width, scheme):
    browser.open(page, width=width, scheme=scheme)
    assert browser.complaints == []
    assert [url for url in browser.requests if not url.startswith(LOCAL)] == []
    assert len(browser.requests) == 1
    assert browser.evaluate(OVERFLOW) == 0
    assert (browser.evaluate(BRIGHTNESS) > 380) == (scheme == "light")
    drawn = browser.evaluate(COLOURS)
    assert len(drawn) == 3
    original, text = browser.evaluate(colour("original")), browser.evaluate(colour("text"))
    assert original in drawn[0]
    assert [text in colours for colours in drawn[1:]] == [True, True]
    charts = browser.evaluate("drawn.map((chart) => chart.data.datasets[0].data.length)")
    assert charts == [4, 10, 10]


def test_charts_follow_the_colour_scheme_while_the_page_is_open(browser, page):
    browser.open(page, scheme="light")
    light = browser.evaluate(colour("original"))
    browser("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    browser.settle()
    dark = browser.evaluate(colour("original"))
    assert dark != light
    drawn = browser.evaluate(COLOURS)
    assert dark in drawn[0]
    assert light not in drawn[0]


def test_paper_is_light_also_in_the_dark(browser, page):
    browser.open(page, scheme="dark")
    dark = browser.evaluate(colour("original"))
    browser.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert browser.evaluate(colour("original")) != dark
    assert browser.evaluate(colour("original")) in browser.evaluate(COLOURS)[0]
    browser.evaluate("dispatchEvent(new Event('afterprint'))")
    assert browser.evaluate(colour("original")) == dark
    assert browser.pdf().startswith(b"%PDF")
    assert browser.complaints == []


def test_a_pointer_on_a_dot_is_told_about_it(browser, page):
    browser.open(page, width=1200, height=2000)
    where = browser.evaluate("""
        (() => {
          const box = document.querySelector("canvas").getBoundingClientRect();
          const { x, y } = drawn[0].getDatasetMeta(0).data[1];
          return [box.left + x, box.top + y];
        })()
    """)
    browser("Input.dispatchMouseEvent", type="mouseMoved", x=where[0], y=where[1])
    browser.evaluate("new Promise((done) => setTimeout(done, 200))")
    told = browser.evaluate("[...drawn[0].tooltip.title, ...drawn[0].tooltip.body.flatMap((each) => each.lines)]")
    assert told[0] == "2  int8 dynamic · onnxruntime"
    assert told[-1] == "chosen: the fastest of all"


@pytest.mark.parametrize("width", [360, 1200])
def test_names_that_are_meant_to_harm_do_nothing_and_fit(browser, rendered, width):
    page = rendered(
        timings(calls=5),
        {"quantize": {"tables": {"ranges": [{HOSTILE: HOSTILE}]}}},
        candidates=[candidate(HOSTILE, score=0.7, drop=0.1, ms=ms, why=HOSTILE) for ms in (1, 2)],
        components=[{"name": HOSTILE, "p50": 1, "share": 1}],
        lineage=[{"stage": HOSTILE, "options": {HOSTILE: HOSTILE}, "key": HOSTILE, "seconds": 1, "peak_rss_bytes": 1}],
        source__path=HOSTILE,
        accuracy__metric=HOSTILE,
        accuracy__limit_text=HOSTILE,
        target={"name": HOSTILE},
        environment={HOSTILE: HOSTILE, "libraries": {HOSTILE: HOSTILE}},
        recipe={HOSTILE: HOSTILE},
    )
    browser.open(page.path, width=width)
    assert browser.evaluate("window.hacked") is None
    assert browser.complaints == []
    assert len(browser.requests) == 1
    assert browser.evaluate(OVERFLOW) == 0
