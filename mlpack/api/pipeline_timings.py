"""What comes before and after the model, as components of a request: timed on one golden sample, by themselves."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlpack.core.artifact import ComponentRecord
    from mlpack.core.stage import Say

BEFORE, AFTER = "preprocess", "postprocess"
_SECONDS = 0.2


def pipeline_parts(pipeline: Path, golden: Path, say: Say) -> dict[str, float]:
    """Median ms of `preprocess` and `postprocess` for one sample, in a process of its own; nothing without raw ones."""
    from mlpack.engine import process

    if not (golden / "raw.jsonl").is_file():
        return {}
    arguments = {"pipeline": str(pipeline), "golden": str(golden)}
    found: dict[str, float] = process.call("mlpack.api.pipeline_timings:time_parts", arguments, say).value
    return found


def time_parts(say: Say, pipeline: str, golden: str) -> dict[str, float]:
    """Runs in the child: both sides of the pipeline on the first golden sample, as `measure.clock` times calls."""
    import numpy as np

    from mlpack.core.arrays import load_arrays
    from mlpack.core.dataset import from_json
    from mlpack.measure.clock import time_calls
    from mlpack.measure.machine import timing_lock
    from mlpack.pipeline import Pipeline

    del say
    made = Pipeline.load(Path(pipeline))
    with (Path(golden) / "raw.jsonl").open(encoding="utf-8") as lines:
        sample = json.loads(next(lines))
    raw = {name: [from_json(value)] for name, value in sample.items()}
    outputs = {name: array[:1] for name, array in load_arrays(Path(golden) / "outputs.npz").items()}
    told = {}
    with timing_lock():
        if made.preprocess is not None:
            told[BEFORE] = float(np.median(time_calls(partial(made.prepare, raw), _SECONDS)))
        if made.postprocess is not None:
            told[AFTER] = float(np.median(time_calls(partial(made.finish, outputs, raw), _SECONDS)))
    return told


def with_pipeline(components: Sequence[ComponentRecord], parts: Mapping[str, float]) -> tuple[ComponentRecord, ...]:
    """The components of a whole request, shares summing to 1: before the model, the model's own, after it."""
    from mlpack.core.artifact import ComponentRecord

    if not components or not parts:
        return tuple(components)
    before, after = ([(side, parts[side])] if side in parts else [] for side in (BEFORE, AFTER))
    rows = [*before, *((each.name, each.p50) for each in components), *after]
    whole = sum(ms for _, ms in rows)
    return tuple(ComponentRecord(name=name, p50=ms, share=ms / whole) for name, ms in rows)
