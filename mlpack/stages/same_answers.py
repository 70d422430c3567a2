"""Holds a file made of a torch model to the original: one row at a time and together, before anything else is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlpack.core.backend_options import BackendOptions
from mlpack.errors import StageFailed
from mlpack.stages.samples import difference

if TYPE_CHECKING:
    import numpy as np

    from mlpack.core.model import Model
    from mlpack.core.stage import Job


def differences(
    original: Model, made: Model, backend: str, rows: dict[str, np.ndarray], job: Job, allowed: float | None
) -> dict[str, float]:
    """The largest relative L2 difference of each output on these rows, at batch 1 and all together.

    With `allowed` None what differs is judged later, on the data.

    Raises:
        StageFailed: an output differs by more.
    """
    count = len(next(iter(rows.values()))) if rows else 1
    sizes = [1, count] if original.dynamic_batch and count > 1 else [count]
    options = BackendOptions(threads=job.threads)
    precision = "bfloat16" if made.numerics == "bf16" else "float32"
    worst: dict[str, float] = {}
    with (
        job.backend("torch").open(original, job.target, options) as reference,
        job.backend(backend).open(made, job.target, options.model_copy(update={"precision": precision})) as candidate,
    ):
        for size in sizes:
            given = {name: array[:size] for name, array in rows.items()}
            expected, got = reference(given), candidate(given)
            for name, array in expected.items():
                largest, relative = difference(array, got[name])
                worst[name] = max(worst.get(name, 0.0), relative)
                if allowed is not None and not relative <= allowed:
                    raise StageFailed(
                        f"the {made.format} file differs from the original in output {name!r} at batch {size}: "
                        f"relative difference {relative:.2g}, largest {largest:.2g} (allowed {allowed:g})",
                        "an operation or control flow that depends on values is lost in it: simplify the forward() "
                        "around that output; for ONNX also try --set export.opset=18",
                    )
    return worst
