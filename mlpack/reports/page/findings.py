"""The headings: what each section found, as a sentence."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from mlpack.reports.page.wording import duration, number, share
from mlpack.reports.pruned import pruned_line
from mlpack.reports.trained import trained_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from mlpack.core.artifact import Artifact, ComponentRecord, LatencyRecord, LineageRecord
    from mlpack.reports.page.sensitivity import Layer

_NO_DIFFERENCE = "no difference in speed shown"


def on_candidates(artifact: Artifact) -> str:
    """Which candidate won, out of how many."""
    chosen = next((each for each in artifact.candidates if each.chosen), None)
    count = len(artifact.candidates)
    if chosen is None:
        return f"{count} candidates, none chosen"
    tried = "the only candidate" if count == 1 else f"chosen out of {count} candidates"
    return f"{chosen.label or chosen.recipe}: {tried}"


def on_latency(latency: Sequence[LatencyRecord]) -> str:
    """How much faster, at each batch size; a speed whose interval holds 1 is no difference."""
    timed = [each for each in latency if each.speedup is not None]
    if not timed:
        return "Latency was not measured"
    told = "; ".join(_speeds(way, list(those)) for way, those in groupby(timed, _way))
    if not all(each.steady for each in timed):
        return f"On a disturbed machine, not to be relied on: {told}"
    return told[0].upper() + told[1:]


def _way(record: LatencyRecord) -> str:
    assert record.speedup is not None
    if record.speedup_ci95 is not None and record.speedup_ci95[0] <= 1 <= record.speedup_ci95[1]:
        return _NO_DIFFERENCE
    return "times as fast" if record.speedup >= 1 else "times slower"


def _speeds(way: str, those: Sequence[LatencyRecord]) -> str:
    """Batch sizes of one way: the words once, before the first."""
    if way == _NO_DIFFERENCE:
        return f"{way} at batch {' and '.join(str(each.batch) for each in those)}"
    ratios = [each.speedup or 1.0 for each in those]
    amounts = [number(max(ratio, 1 / ratio)) for ratio in ratios]
    first, *rest = zip(amounts, those, strict=True)
    others = [f"{amount} at batch {each.batch}" for amount, each in rest]
    return ", ".join([f"{first[0]} {way} at batch {first[1].batch}", *others])


def on_components(components: Sequence[ComponentRecord]) -> str:
    """What takes the most of one request."""
    most = max(components, key=lambda each: each.share)
    return f"{most.name} takes {share(most.share)} of a request"


def on_sensitivity(layers: Sequence[Layer]) -> str:
    """How many layers had to stay in float, and which costs the most."""
    floats = sum(each.floats for each in layers)
    kept = "none stays in float" if not floats else f"{floats} of {len(layers)} stay{'s' * (floats == 1)} in float"
    return f"{layers[0].name} is the most sensitive layer; {kept}"


def on_pruning(metrics: Mapping[str, Any]) -> str:
    """How much of the original's work is gone, or how much of its weights are zeros."""
    return pruned_line(metrics)


def on_training(metrics: Mapping[str, Any]) -> str:
    """How right it became on rows that it was not trained on."""
    return trained_line(metrics)


def on_lineage(lineage: Sequence[LineageRecord]) -> str:
    """How many stages, and how long they took."""
    stages = "One stage" if len(lineage) == 1 else f"{len(lineage)} stages"
    return f"{stages} in {duration(sum(each.seconds for each in lineage))}"


def on_numerics(artifact: Artifact) -> str:
    """In which numerics the model computes."""
    model = artifact.model
    return f"{share(model.numerics_share)} of the compute runs in {model.numerics}"
