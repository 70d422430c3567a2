"""Cold starts: from the start of a fresh process to its first answer, and what it answers."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlpack.core.target import Target
from mlpack.errors import StageFailed

if TYPE_CHECKING:
    from pathlib import Path

    from mlpack.core.model import Model
    from mlpack.core.stage import Job, Say

# Starts that have taken so long together tell enough.
_LONG_SECONDS = 10.0
FOUND = "answers.npz"


@dataclass
class Starts:
    """By contender the seconds of each start, and the largest relative L2 difference to the first one's answers.

    `refused` says why a rival could not be started.
    """

    seconds: dict[str, list[float]] = field(default_factory=dict)
    differences: dict[str, float] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def cold_starts(contenders: dict[str, Model], rows: Path, job: Job, times: int, first_batch: int) -> Starts:
    """Start each contender so many times, alone, with mlpack's cache empty: nothing compiled earlier is there.

    Once its starts have taken ten seconds together it is started no more. The first answer is to `first_batch` rows.

    Raises:
        StageFailed: the first contender cannot be started.
    """
    starts = Starts()
    (first, _), *_ = contenders.items()
    for label, model in contenders.items():
        job.say(f"starting {model.backend}")
        taken: list[float] = []
        try:
            while len(taken) < times and sum(taken) < _LONG_SECONDS:
                taken.append(_started(model, rows, job, job.out / f"{len(starts.seconds)}-{FOUND}", first_batch))
        except StageFailed as error:
            if label == first:
                raise
            starts.refused[label] = error.message
            continue
        starts.seconds[label] = taken
        starts.differences[label] = _difference(job.out / f"0-{FOUND}", job.out / f"{len(starts.seconds) - 1}-{FOUND}")
    for path in job.out.glob(f"*-{FOUND}"):
        path.unlink()
    return starts


def _started(model: Model, rows: Path, job: Job, answers: Path, first_batch: int) -> float:
    arguments = {
        "model": {"path": str(model.path), **model.model_dump(mode="json")},
        "target": job.target.model_dump(mode="json"),
        "threads": job.threads,
        "rows": str(rows),
        "answers": str(answers),
        "first_batch": first_batch,
    }
    before = time.monotonic()
    launched = job.launch("mlpack.stages.cold_start:start", arguments)
    launched.ready()
    seconds = time.monotonic() - before
    launched.finish()
    return seconds


def _difference(one: Path, other: Path) -> float:
    from mlpack.core.arrays import load_arrays
    from mlpack.stages.samples import difference

    reference, answers = load_arrays(one), load_arrays(other)
    if reference.keys() != answers.keys():
        return float("inf")
    return max(difference(array, answers[name])[1] for name, array in reference.items())


def start(
    say: Say, model: dict[str, Any], target: dict[str, Any], threads: int, rows: str, answers: str, first_batch: int
) -> None:
    """Open the model, answer the first rows, say that it is ready; then answer all rows and keep the answers.

    Runs in a process of its own.
    """
    import os
    import sys
    import tempfile
    from pathlib import Path

    import numpy as np

    from mlpack.backends import BACKENDS
    from mlpack.core.arrays import save_arrays
    from mlpack.core.model import Model

    # A backend that keeps what it has compiled finds nothing there.
    os.environ["MLPACK_CACHE"] = tempfile.mkdtemp()
    os.environ.pop("TORCHINDUCTOR_CACHE_DIR", None)
    opened = Model.model_validate(model)
    assert opened.backend is not None
    inputs = dict(np.load(rows))
    options = opened.backend_options.with_threads(threads)
    with BACKENDS[opened.backend].open(opened, Target.model_validate(target), options) as runner:
        runner({name: np.ascontiguousarray(array[:first_batch]) for name, array in inputs.items()})
        say("ready")
        sys.stdin.readline()
        save_arrays(Path(answers), runner(inputs))
