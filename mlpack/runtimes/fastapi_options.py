"""What options of the fastapi package ask of its model, add to its files, and want from who runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlpack.core.words import Frozen
from mlpack.errors import UsageError
from mlpack.runtimes.package_files import check_cache, check_servable, model_files, on_gpu, pinned

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from mlpack.core.artifact import Artifact, Stored
    from mlpack.core.runtime import PackageOptions

_BYTES_PER_MB = 1_000_000
_TRACES = ("opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http")
_PIPELINE = "pipeline/"


class Variable(Frozen):
    """A variable that the server wants where it runs, and an example of it."""

    name: str
    purpose: str


def check_options(stored: Stored, options: PackageOptions) -> None:
    """Refuse what would make answers other ones than were judged, and what means nothing.

    Raises:
        UsageError: it says which option, and why.
    """
    check_cache(stored, options, "fastapi")
    if options.fallback:
        _check_fallback(stored, options.fallback)


def _check_fallback(stored: Stored, spare: Stored) -> None:
    """Whoever sends what the first one takes must get from the other one what the first one gives.

    Raises:
        UsageError: they differ in that.
    """
    named, other = _named(stored), _named(spare)
    leave_out = f"mlpack package {named} --runtime fastapi"
    if stored.artifact.digest == spare.artifact.digest:
        raise UsageError(f"{named} cannot be its own fallback: what fails once fails again", leave_out)
    check_servable(spare)
    if on_gpu(spare.artifact):
        raise UsageError(f"the fastapi server runs on the CPU; the fallback {other} is for a GPU", leave_out)
    for side in ("inputs", "outputs"):
        mine, its = (_interface(each.artifact, side) for each in (stored, spare))
        if mine != its:
            raise UsageError(
                f"{named} and its fallback {other} have other {side}: {', '.join(mine)} and {', '.join(its)}", leave_out
            )
    if _pipeline(stored) != _pipeline(spare):
        raise UsageError(f"{named} and its fallback {other} prepare samples, or make answers, differently", leave_out)
    if spare.artifact.accuracy.batch_dependent and not stored.artifact.accuracy.batch_dependent:
        raise UsageError(
            f"requests to {named} share batches, in which its fallback {other} would answer differently", leave_out
        )


def pins(stored: Stored, options: PackageOptions, libraries: Iterable[str]) -> dict[str, str]:
    """Exact versions of what the server needs, with these options.

    Raises:
        UsageError: the fallback was measured with another version of its backend.
        MissingLibrary: no version of a library is known here.
    """
    artifact = stored.artifact
    wanted = (*libraries, *(["redis"] if options.cache == "redis" else []))
    found = pinned(artifact, (*wanted, *(_TRACES if options.traces == "otlp" else ())))
    if options.fallback is None:
        return found
    spare = options.fallback.artifact
    (version,) = pinned(spare, [spare.model.backend]).values()
    known = found.setdefault(spare.model.backend, version)
    if known != version:
        raise UsageError(
            f"{_named(stored)} was measured with {spare.model.backend} {known}, its fallback "
            f"{_named(options.fallback)} with {version}: one server has one of them",
            f"mlpack optimize {spare.source.path} --name {spare.name}",
        )
    return found


def described(options: PackageOptions) -> dict[str, Any]:
    """The parts of model.json that only some packages have."""
    parts: dict[str, Any] = {"access": options.access, "traces": options.traces}
    if options.cache != "none":
        parts["cache"] = {"store": options.cache, "size_bytes": options.cache_mb * _BYTES_PER_MB}
    if options.fallback:
        artifact = options.fallback.artifact
        parts["fallback"] = {
            "name": artifact.name,
            "version": str(artifact.version),
            "digest": artifact.digest,
            **how_it_runs(artifact, "fallback"),
        }
    return parts


def how_it_runs(artifact: Artifact, folder: str) -> dict[str, Any]:
    """The backend, the entry file and the options that it was measured with."""
    record = artifact.model
    return {
        "backend": record.backend,
        "entry": f"{folder}/{record.entry}",
        "options": {
            "threads": record.backend_options.threads or 1,
            "precision": record.backend_options.precision,
            "graph_optimizations": record.backend_options.graph_optimizations,
            "waiting": record.backend_options.waiting,
        },
    }


def fallback_files(options: PackageOptions) -> dict[str, Path]:
    """The fallback's model, by its place in the package."""
    if options.fallback is None:
        return {}
    return {f"fallback/{relative}": path for relative, path in model_files(options.fallback).items()}


def variables(options: PackageOptions) -> list[Variable]:
    """What a server with these options wants, and whose values are nobody's but the operator's."""
    wanted = {
        "AUTH_TOKEN": (options.access == "token", "the token that clients send, of at least 16 characters"),
        "REDIS_URL": (options.cache == "redis", "the Redis that keeps answers, redis://HOST:6379/0"),
        "OTEL_EXPORTER_OTLP_ENDPOINT": (options.traces == "otlp", "the collector of traces, http://HOST:4318"),
    }
    return [Variable(name=name, purpose=purpose) for name, (is_wanted, purpose) in wanted.items() if is_wanted]


def _named(stored: Stored) -> str:
    return f"{stored.artifact.name}@{stored.artifact.version}"


def _interface(artifact: Artifact, side: str) -> list[str]:
    return sorted(str(spec) for spec in getattr(artifact.model, side))


def _pipeline(stored: Stored) -> dict[str, str]:
    return {name: digest for name, digest in stored.artifact.files.items() if name.startswith(_PIPELINE)}
