"""A rendered page, as it was written and as people read it."""

from __future__ import annotations

import html
import json
import re
from dataclasses import dataclass
from pathlib import Path


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
