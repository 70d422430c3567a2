"""The one builder that both libraries are driven by: their Python modules have TensorRT 11's names alike."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from mlpack.backends.tensorrt_plan import LOG, PLAN, RECORD, TIMING_CACHE, Build, Profile, spans_of
from mlpack.core.machine import nvidia_devices
from mlpack.errors import MissingHardware, MissingLibrary, ModelError, StageFailed, UsageError
from mlpack.stages.engine_network import Types, parsed, types_of

if TYPE_CHECKING:
    from mlpack.backends.tensorrt_library import Library
    from mlpack.core.model import Model, TensorSpec
    from mlpack.core.stage import Job
    from mlpack.stages.build_engine import BuildEngine

_FLAGS = {
    "constants": (),
    "streamed": ("WEIGHT_STREAMING",),
    "refittable": ("REFIT",),
    "stripped": ("STRIP_PLAN", "REFIT_IDENTICAL"),
}
_LEVELS = {"same_compute_capability": "SAME_COMPUTE_CAPABILITY", "ampere_plus": "AMPERE_PLUS"}


def built(library: Library, stage: BuildEngine, model: Model, job: Job) -> tuple[Build, float]:
    """The plan, its log and its record in the job's folder; and how many seconds the builder took.

    Raises:
        MissingHardware, MissingLibrary, UsageError: what the options ask for cannot be built by this library here.
        StageFailed: the parser or the builder refuses the graph, or the network has other types than the graph.
    """
    trt, logger = library.module, library.logger
    logger.lines.clear()
    builder = trt.Builder(logger)
    config = builder.create_builder_config()
    _configure(library, config, stage, job)
    try:
        job.say(f"parsing for {library.title}")
        network = parsed(library, builder, model.entry_path)
        types = types_of(network)
        _keeps_numerics(types, model, library)
        profile = {spec.name: _profile(spec, model, stage) for spec in model.inputs}
        spanned = builder.create_optimization_profile()
        for name, each in profile.items():
            spanned.set_shape(name, each.smallest, each.usual, each.largest)
        config.add_optimization_profile(spanned)
        job.say(f"building for {job.target.title}")
        start = time.perf_counter()
        plan = builder.build_serialized_network(network, config)
        seconds = time.perf_counter() - start
        if plan is None:
            raise StageFailed(
                f"{library.title} cannot build this engine: {logger.complaint()}", "try --backend onnxruntime"
            )
    finally:
        (job.out / LOG).write_text("".join(f"{level} {text}\n" for level, text in logger.lines), encoding="utf-8")
    (job.out / PLAN).write_bytes(plan)
    if library.name == "tensorrt" and (cache := config.get_timing_cache()) is not None:
        (job.out / TIMING_CACHE).write_bytes(cache.serialize())
    build = Build(
        library=library.name,
        version=library.version,
        compute_capability=job.target.compute_capability or "",
        hardware=stage.hardware,
        weights=stage.weights,
        version_compatible=stage.version_compatible,
        tf32=stage.tf32,
        profile=profile,
        layers=types.layers,
        tensors=types.tensors,
        compute=types.compute,
        quantized=types.quantized,
        plan_bytes=plan.nbytes,
    )
    (job.out / RECORD).write_text(build.model_dump_json(indent=1), encoding="utf-8")
    return build, seconds


def _configure(library: Library, config: Any, stage: BuildEngine, job: Job) -> None:
    flags = library.module.BuilderFlag
    for flag in _FLAGS[stage.weights]:
        config.set_flag(getattr(flags, flag))
    if stage.version_compatible:
        config.set_flag(flags.VERSION_COMPATIBLE)
    # It is on by default: fp32 would be TF32 with nobody having said so.
    if not stage.tf32:
        config.clear_flag(flags.TF32)
    if stage.workspace_mib is not None:
        config.set_memory_pool_limit(library.module.MemoryPoolType.WORKSPACE, stage.workspace_mib << 20)
    if library.name == "tensorrt_rtx":
        _portable(library, config, stage, job)
        return
    if stage.hardware in _LEVELS:
        levels = library.module.HardwareCompatibilityLevel
        config.hardware_compatibility_level = getattr(levels, _LEVELS[stage.hardware])
    config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)


def _portable(library: Library, config: Any, stage: BuildEngine, job: Job) -> None:
    """TensorRT-RTX says for which compute capabilities it builds, where TensorRT builds on the card and has levels."""
    if stage.version_compatible:
        raise UsageError(
            f"{library.title} builds no version-compatible engines",
            "--set build_engine.version_compatible=false, or build with TensorRT on the card",
        )
    if stage.weights in {"refittable", "stripped"} and not nvidia_devices():
        raise MissingHardware(
            f"{library.title} builds {stage.weights} engines on a card only",
            "--set build_engine.weights=constants, or run this on the card",
        )
    # Unset it builds for all cards from Ampere on.
    if stage.hardware == "ampere_plus":
        return
    wanted = f"SM{(job.target.compute_capability or '').replace('.', '')}"
    known = library.module.ComputeCapability.__members__
    if wanted not in known:
        able = ", ".join(name for name in known if name.startswith("SM"))
        raise MissingLibrary(
            f"{library.title} builds for {able}, and {job.target.title} is {wanted}",
            "on that card: pip install 'tensorrt>=11,<12'",
        )
    config.num_compute_capabilities = 1
    config.set_compute_capability(known[wanted], 0)


def _keeps_numerics(types: Types, model: Model, library: Library) -> None:
    """The types of the parsed network are the promise: an engine in others would only be called fp16 or int8."""
    kept = {
        "fp16": types.compute.get("HALF", 0),
        "bf16": types.compute.get("BF16", 0),
        "int8": types.quantized if types.tensors.get("INT8") else 0,
        "fp8": types.quantized if types.tensors.get("FP8") else 0,
    }
    if kept.get(model.numerics) == 0:
        raise StageFailed(
            f"{library.title} would compute nothing of this {model.numerics} graph in {model.numerics}",
            "quantize for an NVIDIA target: its graphs have the types and the Q/DQ pairs that TensorRT reads",
        )


def _profile(spec: TensorSpec, model: Model, stage: BuildEngine) -> Profile:
    """The smallest, the usual and the largest shape. The first dim is the batch, where it is free.

    Raises:
        ModelError: nobody knows how large a free dim can be.
    """
    spans = spans_of(spec, stage.batches, model.largest, stage.dims)
    sizes = [span for span in spans if not isinstance(span, str)]
    for dim in (span for span in spans if isinstance(span, str)):
        raise ModelError(
            f"input {spec} has a free dim {dim!r} of which no largest size is known",
            f"say its smallest, usual and largest: --set 'build_engine.dims={{{dim}: [1, 32, 128]}}'",
        )
    smallest, usual, largest = (tuple(span[at] for span in sizes) for at in range(3))
    return Profile(smallest=smallest, usual=usual, largest=largest)
