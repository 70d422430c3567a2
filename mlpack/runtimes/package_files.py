"""What every package has, whatever the server: the model, how requests share a run, pins and labels."""

from __future__ import annotations

import json
import re
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mlpack.core.words import Frozen
from mlpack.errors import MissingLibrary, UsageError

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping

    from jinja2 import Environment

    from mlpack.core.artifact import Artifact, Stored
    from mlpack.core.model import TensorSpec
    from mlpack.core.runtime import PackageOptions

TEMPLATES = Path(__file__).parent / "templates"
DATATYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
}
# What most servers run; one that runs more says so.
_RUNS = {"onnx": ("onnxruntime", "openvino")}
_FORMATS = {"onnx": "ONNX", "torchscript": "TorchScript"}
_EXTRAS = {
    "tokenizers": "text",
    "pillow": "images",
    "redis": "redis",
    "opentelemetry-sdk": "traces",
    "opentelemetry-exporter-otlp-proto-http": "traces",
}


class Batching(Frozen):
    """How requests may share a run. `max_rows` is None where the model has no free batch dim."""

    mode: Literal["merged", "apart"]
    max_rows: int | None
    reason: str


def batching(stored: Stored, options: PackageOptions) -> Batching:
    """What the graph and the accuracy measurement allow."""
    artifact = stored.artifact
    inputs, outputs = artifact.model.inputs, artifact.model.outputs
    symbols = {spec.dims[0] if spec.dims else None for spec in (*inputs, *outputs)}
    symbol = next(iter(symbols))
    if len(symbols) > 1 or not isinstance(symbol, str):
        fixed = inputs[0].dims[0] if inputs and inputs[0].dims else None
        reason = (
            f"each request has exactly {fixed} rows (static batch)"
            if isinstance(fixed, int)
            else "not all inputs and outputs have the batch as their first dim"
        )
        return Batching(mode="apart", max_rows=None, reason=reason)
    if artifact.accuracy.batch_dependent:
        judged = artifact.accuracy.batch
        return Batching(
            mode="apart",
            max_rows=min(options.max_batch, judged),
            reason=f"its answers depend on batch mates (dynamic INT8 scales); judged up to batch {judged}",
        )
    return Batching(
        mode="merged",
        max_rows=options.max_batch,
        reason=f"up to {options.max_batch} rows arriving within {options.queue_delay_ms:g} ms run together",
    )


def check_servable(stored: Stored, runs: Mapping[str, tuple[str, ...]] = _RUNS) -> None:
    """Refuse what a server cannot serve as it was judged; `runs` are the backends that it has, by format.

    Raises:
        UsageError: the server does not run this format, a dtype has no name in the protocol, or the accuracy was scored
            on another backend than the one that would serve.
    """
    artifact = stored.artifact
    record = artifact.model
    named = f"{artifact.name}@{artifact.version}"
    if record.backend not in runs.get(record.format, ()):
        served = " and ".join(_FORMATS[each] for each in runs)
        other = f"mlpack package {named} --runtime torchserve, or " if record.format == "torchscript" else ""
        raise UsageError(
            f"{named} is {record.format} run by {record.backend}; packages serve {served} models only",
            f"the graph that it was built from: mlpack package {artifact.parent.name}@{artifact.parent.version}"
            if artifact.parent
            else f"{other}mlpack optimize {artifact.source.path} --backend onnxruntime",
        )
    if artifact.accuracy.backend != record.backend:
        raise UsageError(
            f"{named} would be served by {record.backend} but its accuracy was scored on "
            f"{artifact.accuracy.backend}: answers can differ between the two",
            f"mlpack optimize {artifact.source.path} --backend {record.backend}",
        )
    for spec in (*record.inputs, *record.outputs):
        if spec.dtype not in DATATYPES:
            raise UsageError(
                f"{spec.name!r} of {named} is {spec.dtype}, which the V2 inference protocol cannot carry",
                "export the model with float32 inputs and outputs",
            )


def refuse_options(options: PackageOptions, known: Container[str], named: str) -> None:
    """Refuse what a server has no use for, rather than leave it out.

    Raises:
        UsageError: an option that is not among the known ones has another value than its default.
    """
    for name, field in type(options).model_fields.items():
        if name not in known and getattr(options, name) != field.default:
            raise UsageError(
                f"--{name.replace('_', '-')} is an option of the fastapi server; {named}",
                "leave it out, or --runtime fastapi",
            )


def check_cache(stored: Stored, options: PackageOptions, runtime: str) -> None:
    """Refuse to keep answers that depend on batch mates, and a size of what is not there.

    Raises:
        UsageError: it says which option, and why.
    """
    named = f"{stored.artifact.name}@{stored.artifact.version}"
    if options.cache != "none" and stored.artifact.accuracy.batch_dependent:
        raise UsageError(
            f"{named} answers differently in different batches (dynamic INT8 scales): a kept answer is not the one "
            "that a request would get",
            f"mlpack package {named} --runtime {runtime} --cache none",
        )
    if options.cache != "memory" and options.cache_mb != type(options).model_fields["cache_mb"].default:
        raise UsageError(f"--cache-mb is the size of a cache in memory; --cache is {options.cache}", "--cache memory")


def queue_capacity(shared_by: Batching, options: PackageOptions) -> int:
    """Enough for a burst of full batches, few enough that nobody is answered too late."""
    return max(64, 8 * (shared_by.max_rows or 1) * options.instances)


def filling(artifact: Artifact) -> int | None:
    """How many copies of the model fill the CPUs that it was timed on; None: it was not, or nobody knows how many."""
    cpus: int | None = artifact.environment.get("cpus")
    is_timed = any(timed.optimized for timed in artifact.latency)
    return max(1, cpus // (artifact.model.backend_options.threads or 1)) if cpus and is_timed else None


def check_engine_fallback(artifact: Artifact, options: PackageOptions) -> None:
    """It is for packages that build an engine.

    Raises:
        UsageError: it is asked for, and the artifact is for no card.
    """
    if options.engine_fallback != "none" and not on_gpu(artifact):
        raise UsageError(
            "--engine-fallback is for engines that are built at the first start, and "
            f"{artifact.name}@{artifact.version} is for {artifact.target.get('name')}",
            "leave it out",
        )


def on_gpu(artifact: Artifact) -> bool:
    """Whether the artifact is meant for an NVIDIA GPU."""
    return artifact.target.get("kind") == "cuda"


def model_files(stored: Stored) -> dict[str, Path]:
    """The files of the model folder, external data included, by their path relative to it."""
    folder = stored.path / stored.artifact.model.path
    return {
        recorded.relative_to(folder).as_posix(): recorded
        for recorded in (stored.path / relative for relative in sorted(stored.artifact.files))
        if recorded.is_relative_to(folder)
    }


def datatype(spec: TensorSpec) -> str:
    """The V2 protocol's name of a tensor's dtype."""
    return DATATYPES[spec.dtype]


def pinned(artifact: Artifact, libraries: Iterable[str]) -> dict[str, str]:
    """Exact versions: those that the artifact was measured with, else those installed here.

    Raises:
        MissingLibrary: a library is neither recorded nor installed.
    """
    recorded: Mapping[str, str] = artifact.environment.get("libraries", {})
    versions = {}
    for library in libraries:
        try:
            version = recorded.get(library) or metadata.version(library)
        except metadata.PackageNotFoundError as error:
            raise MissingLibrary(
                f"the package would need {library}, of which no version is known here",
                f"pip install 'mlpack-toolchain[{_EXTRAS.get(library, 'serve')}]'",
            ) from error
        # A local version (1.2+cpu) names a build that no public index has.
        versions[library] = version.partition("+")[0]
    return versions


def json_text(content: Any) -> str:
    """JSON as a file that people read."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def render(template: str, **values: Any) -> str:
    """A file made from the template of this name; a value that is missing is an error."""
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - no HTML is made here; the filter below quotes
    )
    # Double quotes with backslash escapes: what JSON, YAML, Dockerfile labels and protobuf text all read.
    environment.filters["quoted"] = lambda value: json.dumps(str(value), ensure_ascii=False)
    return environment


def facts(stored: Stored, shared_by: Batching) -> dict[str, Any]:
    """What the templates of every package may say about the artifact."""
    artifact = stored.artifact
    record = artifact.model
    target = str(artifact.target.get("name", "cpu"))
    return {
        "name": artifact.name,
        "version": artifact.version,
        "digest": artifact.digest,
        "model_digest": record.digest,
        "created": artifact.created,
        "mlpack_version": artifact.mlpack_version,
        "description": f"{record.numerics} on {record.backend} for {target}",
        "numerics": record.numerics,
        "backend": record.backend,
        "options": record.backend_options,
        # None means one thread to the backends that measured it, so it does here.
        "threads": str(record.backend_options.threads or 1),
        "target": target,
        "gpu": on_gpu(artifact),
        "batching": shared_by,
        "batching_note": batching_note(shared_by),
        "accuracy": accuracy_line(artifact),
        "inputs": [f"`{spec}`" for spec in record.inputs],
        "outputs": [f"`{spec}`" for spec in record.outputs],
        "service": artifact.name,
        "image": image_name(artifact),
    }


def image_name(artifact: Artifact) -> str:
    """What the image of a package is called, with its tag."""
    # Parts of a name are letters and digits, joined by one dot, dash or two underscores at the most.
    return f"{re.sub(r'[^a-z0-9]+', '-', artifact.name.lower()).strip('-')}:{artifact.version}"


def batching_note(shared_by: Batching) -> str:
    """How requests share a run, for the README."""
    if shared_by.max_rows is None:
        return f"none, one request at a time: {shared_by.reason}"
    if shared_by.mode == "apart":
        return f"one request at a time, of up to {shared_by.max_rows} rows, and no response cache: {shared_by.reason}"
    return f"{shared_by.reason}; the answer to a request does not depend on the others"


def accuracy_line(artifact: Artifact) -> str:
    """The measured accuracy and its verdict in one sentence."""
    scored = artifact.accuracy
    where = f"{scored.backend}{' (simulated, not on the target)' if scored.simulated else ''}"
    if scored.baseline is None or scored.optimized is None:
        return f"Its accuracy was not measured on labelled data (verdict: {scored.verdict}; run on {where})."
    limit = f", limit {scored.limit_text}" if scored.limit_text else ""
    kind = "" if scored.verified_on == "labels" else f" ({scored.verified_on}, not labels)"
    return (
        f"{scored.metric}{kind} {scored.baseline:.4g} → {scored.optimized:.4g} on {scored.samples:,} samples"
        f", scored on {where}: {scored.verdict}{limit}."
    )
