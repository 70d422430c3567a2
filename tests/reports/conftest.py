"""A store of artifacts made by hand, and the command that renders them."""

from __future__ import annotations

import pytest
from hand_made import publish_by_hand
from pages import Page


@pytest.fixture
def rendered(place, cli):
    """Publish an artifact that is made by hand and render it with the command."""

    def call(timed=None, reports=None, **changes) -> Page:
        stored = publish_by_hand(place / "artifacts", timed, reports, **changes)
        done = cli("report", f"{stored.artifact.name}@{stored.artifact.version}", "--out", "page.html", "--force")
        assert done.code == 0, done.err
        return Page(place / "page.html", (place / "page.html").read_text(encoding="utf-8"))

    return call
