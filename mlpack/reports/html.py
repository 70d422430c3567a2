"""An artifact as one HTML page that needs nothing else: no network, no second file."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlpack.reports.page import findings, wording
from mlpack.reports.page.launches import launches
from mlpack.reports.page.pareto import pareto
from mlpack.reports.page.sensitivity import layers
from mlpack.reports.page.verdict import is_percent, verdict
from mlpack.reports.predicted import predicted_lines

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from jinja2 import Environment

    from mlpack.core.artifact import Artifact

_PAGE = Path(__file__).parent / "page"
_VENDOR = Path(__file__).parent / "vendor"
# In this order: each file uses what stands in those before it.
_CHARTS = ("theme", "marks", "pareto", "launches", "draw")


def render(artifact: Artifact, timings: Mapping[str, np.ndarray], reports: Mapping[str, dict[str, Any]]) -> str:
    """The page. `timings` has ms per call by `CONTENDER/BATCH/LAUNCH`; `reports` the stages' reports by name.

    A section that nothing is known about is left out. Version, digest and files of the artifact are not needed.
    """
    percent = is_percent(artifact, dict(reports))
    plot = pareto(artifact, percent=percent)
    by_batch = launches(timings)
    figures = {f"launches-{each['batch']}": each for each in by_batch} | ({"pareto": plot} if plot else {})
    scripts = _scripts() if figures else ()
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            this=artifact,
            percent=percent,
            verdict=verdict(artifact, percent=percent),
            plot=plot,
            by_batch=by_batch,
            timed=[each for each in artifact.latency if each.baseline and each.optimized],
            notes=_unique(note for each in artifact.latency for note in each.notes),
            predicted=[] if artifact.prediction is None else list(predicted_lines(artifact.prediction)),
            sensitivity=layers(artifact, reports),
            pruned=reports.get("prune"),
            trained=reports.get("distill"),
            quantize=reports.get("quantize", {}).get("tables", {}),
            recipe=_yaml(artifact.recipe),
            figures=figures,
            style=style(),
            scripts=scripts,
            policy=" ".join(f"'{_digest(text)}'" for text in scripts) or "'none'",
        )
    )


def style() -> str:
    """The pages' style sheet."""
    return (_PAGE / "style.css").read_text(encoding="utf-8")


@cache
def _scripts() -> tuple[str, str]:
    """The charting library with its licence, and what draws with it."""
    library = (_VENDOR / "chart.umd.min.js").read_text(encoding="utf-8")
    # Without the last line, for which developer tools would look for a second file.
    library = library.partition("//# sourceMappingURL")[0]
    licence = (_VENDOR / "chart.LICENSE.md").read_text(encoding="utf-8")
    own = "\n".join((_PAGE / "charts" / f"{name}.js").read_text(encoding="utf-8") for name in _CHARTS)
    return f"/*\n{licence}*/\n{library}", own


def _digest(script: str) -> str:
    """The script as a content security policy names it: no other one runs."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def _unique(texts: Any) -> list[str]:
    return list(dict.fromkeys(texts))


def _yaml(recipe: dict[str, Any]) -> str:
    import yaml

    return str(yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True)) if recipe else ""


@cache
def environment() -> Environment:
    """Where the pages' templates lie, with the words that they use."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_PAGE),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=True,
    )
    words = ("number", "score", "drop", "drop_interval", "interval", "size", "share", "duration", "plain")
    environment.filters |= {name: getattr(wording, name) for name in words}
    environment.globals["findings"] = findings
    return environment
