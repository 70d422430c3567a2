"""config.pbtxt of a Triton package: derived from the model and its measurements, each number with its origin."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mlpack.backends.onnxruntime_providers import MIB, provider
from mlpack.backends.tensorrt_plan import PLAN
from mlpack.core.provider import Cuda, TensorRt
from mlpack.errors import UsageError
from mlpack.runtimes.golden_side import golden_inputs
from mlpack.runtimes.package_files import batching, datatype, facts, filling, on_gpu, queue_capacity, render

if TYPE_CHECKING:
    from mlpack.core.artifact import Artifact, Stored
    from mlpack.core.model import TensorSpec
    from mlpack.core.runtime import PackageOptions
    from mlpack.runtimes.package_files import Batching

_PRECISION_MODES = {"int8": "INT8", "fp16": "FP16"}
# As the numbers that Triton has for them.
_CONVOLUTIONS = {"exhaustive": "0", "heuristic": "1", "default": "2"}
# Triton's backend that runs the model, or `tensorrt`, on an engine in place of the graph.
Serving = Literal["onnxruntime", "openvino", "python", "tensorrt"]
# What the rate limiter counts; the servers of all packages have one name for it.
THREADS = "threads"


def config(stored: Stored, options: PackageOptions, serving: Serving | None = None) -> str:
    """config.pbtxt, with a comment on the origin of each number.

    `serving` is who runs the model. None: as the repository has it; `tensorrt`: an engine in place of the graph.

    Raises:
        UsageError: a tensor has no dims and the model no batch: Triton cannot describe it.
    """
    artifact = stored.artifact
    shared_by = batching(stored, options)
    preferred = sorted({timed.batch for timed in artifact.latency if 1 < timed.batch <= options.max_batch})
    text = render(
        "triton/config.pbtxt.j2",
        **{
            **facts(stored, shared_by),
            "serving": serving or served_by(artifact, options),
            "filename": PLAN if serving == "tensorrt" else artifact.model.entry,
            "inputs": [tensor_of(artifact, spec, shared_by) for spec in artifact.model.inputs],
            "outputs": [tensor_of(artifact, spec, shared_by) for spec in artifact.model.outputs],
            "max_batch_comment": _max_batch_comment(shared_by),
            "preferred": preferred or [options.max_batch],
            "preferred_comment": _preferred_comment(artifact, preferred),
            "queue_delay_ms": f"{options.queue_delay_ms:g}",
            "queue_delay_us": round(options.queue_delay_ms * 1000),
            "timeout_ms": f"{options.timeout_ms:g}",
            "timeout_us": round(options.timeout_ms * 1000),
            "queue_capacity": queue_capacity(shared_by, options),
            "cached": options.cache == "memory",
            "instances": options.instances,
            "instances_comment": _instances_comment(artifact, shared_by),
            "limit_threads": options.limit_threads,
            "priority": options.priority,
            "resource": THREADS,
            "card": card_of(artifact),
            "precision_mode": _PRECISION_MODES.get(artifact.model.numerics, "FP32"),
            "profiles": _profiles(artifact, shared_by),
            "warmups": warmups_of(stored, shared_by),
        },
    )
    return re.sub(r"\n{3,}", "\n\n", text)


def served_by(artifact: Artifact, options: PackageOptions) -> Serving:
    """Which backend of Triton runs what lies in the repository; on a card ONNX Runtime, with TensorRT beneath it."""
    library = artifact.model.backend
    if on_gpu(artifact):
        return "onnxruntime"
    if options.triton_backend == "python" or (library == "openvino" and options.triton_backend == "usual"):
        return "python"
    return "openvino" if library == "openvino" else "onnxruntime"


def card_of(artifact: Artifact) -> dict[str, Any]:
    """What computes on the card, by the names that Triton has for its options."""
    options = artifact.model.backend_options
    chosen = provider(options) or TensorRt()
    told: dict[str, Any] = {
        "measured": options.device == "cuda",
        "tf32": str(int(chosen.tf32)),
        "builder": {},
        "cuda": {},
    }
    if isinstance(chosen, Cuda):
        told["cuda"] = {"cudnn_conv_algo_search": _CONVOLUTIONS[chosen.convolutions]}
        if chosen.memory_mib is not None:
            told["cuda"]["gpu_mem_limit"] = str(chosen.memory_mib * MIB)
        return {**told, "by_tensorrt": False}
    if told["measured"]:
        told["builder"] = {"trt_builder_optimization_level": str(chosen.level)}
    if chosen.workspace_mib is not None:
        told["builder"]["max_workspace_size_bytes"] = str(chosen.workspace_mib * MIB)
    return {**told, "by_tensorrt": True}


def tensor_of(artifact: Artifact, spec: TensorSpec, shared_by: Batching) -> dict[str, Any]:
    """A tensor as Triton describes it: without the batch dim where Triton adds it.

    Raises:
        UsageError: it has no dims and the model no batch.
    """
    dims = spec.dims if shared_by.max_rows is None else spec.dims[1:]
    if not dims and shared_by.max_rows is None:
        raise UsageError(
            f"{spec.name!r} has no dims and the model no batch, which Triton cannot describe",
            f"mlpack package {artifact.name}@{artifact.version} --runtime fastapi",
        )
    return {
        "name": spec.name,
        "data_type": f"TYPE_{datatype(spec)}",
        "dims": [dim if isinstance(dim, int) else -1 for dim in dims] or [1],
        "symbols": ", ".join(dim for dim in dims if isinstance(dim, str)),
        "scalar": not dims,
    }


def _max_batch_comment(shared_by: Batching) -> list[str]:
    if shared_by.mode == "merged":
        return [f"--max-batch {shared_by.max_rows}: the largest batch that Triton may form."]
    return [
        f"The largest single request, {shared_by.max_rows} rows: no larger batch was judged or allowed.",
        "Its answers depend on batch mates: dynamic INT8 takes one scale from the whole batch.",
    ]


def _preferred_comment(artifact: Artifact, preferred: list[int]) -> str:
    measured = [
        f"batch {timed.batch}: P50 {timed.optimized.p50:.3g} ms"
        for timed in artifact.latency
        if timed.batch in preferred and timed.optimized
    ]
    if measured:
        return f"The batches that were timed: {', '.join(measured)}."
    return "The largest allowed, as no time of a batch between 2 and that was measured."


def _instances_comment(artifact: Artifact, shared_by: Batching) -> list[str]:
    """What was measured of one instance, and how many of them fill the machine that it was measured on."""
    filled = filling(artifact)
    if filled is None or on_gpu(artifact):
        return []
    most = shared_by.max_rows or max(timed.batch for timed in artifact.latency)
    rates = [
        f"{1000 * timed.batch / timed.optimized.p50:,.0f} in batches of {timed.batch}"
        for timed in artifact.latency
        if timed.optimized and timed.batch <= most
    ]
    cpus = artifact.environment["cpus"]
    told = f"It was timed on {cpus} CPUs: {'one copy fills' if filled == 1 else f'{filled} copies fill'} them."
    return [f"{told} Rows per second of one alone, by P50: {', '.join(rates)}."] if rates else [told]


def _profiles(artifact: Artifact, shared_by: Batching) -> dict[str, str] | None:
    """TensorRT's optimization profile; None where dims besides the batch are free."""
    inputs = artifact.model.inputs
    if shared_by.max_rows is None or any(isinstance(dim, str) for spec in inputs for dim in spec.dims[1:]):
        return None
    shapes = {
        end: [f"{spec.name}:{'x'.join(map(str, (rows, *spec.dims[1:])))}" for spec in inputs]
        for end, rows in (("min", 1), ("max", shared_by.max_rows))
    }
    return {end: ",".join(each) for end, each in shapes.items()}


def warmups_of(stored: Stored, shared_by: Batching) -> list[dict[str, Any]]:
    """Warm-ups of golden inputs: one alone, and the largest batch where requests are merged."""
    inputs = stored.artifact.model.inputs
    if shared_by.max_rows is not None and any(len(spec.dims) == 1 for spec in inputs):
        return []
    tensors = [
        {
            "name": spec.name,
            "data_type": f"TYPE_{datatype(spec)}",
            "dims": list(one_request(array, shared_by).shape),
            "file": raw_name(index),
        }
        for index, (spec, array) in enumerate(zip(inputs, golden_inputs(stored).values(), strict=True))
    ]
    sizes = [1] if shared_by.mode == "apart" or shared_by.max_rows == 1 else [1, shared_by.max_rows]
    return [{"name": f"golden batch of {size}", "batch_size": size, "inputs": tensors} for size in sizes]


def one_request(array: np.ndarray, shared_by: Batching) -> np.ndarray:
    """What one warm-up request holds: without the batch dim where Triton adds it."""
    return np.ascontiguousarray(array if shared_by.max_rows is None else array[0])


def raw_name(index: int) -> str:
    """The file of an input's warm-up values."""
    return f"input-{index}.raw"
