"""`mlpack package`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from mlpack.cli.screen import Screen


_TIMEOUT_MS = 20_000.0
_CACHE_MB = 64


def command(
    screen: Screen,
    ref: Annotated[
        str | None, typer.Argument(metavar="[REF]", help="NAME, NAME@3, NAME@TAG, a path; else the only one.")
    ] = None,
    runtime: Annotated[str, typer.Option("--runtime", help="The server: triton, fastapi or torchserve.")] = "",
    out: Annotated[
        Path | None, typer.Option("--out", help="The folder to make; ./NAME-VERSION-RUNTIME without it.")
    ] = None,
    max_batch: Annotated[int, typer.Option("--max-batch", help="Largest batch that the server may form.")] = 8,
    queue_delay_ms: Annotated[
        float, typer.Option("--queue-delay-ms", help="Longest wait for batch mates, in ms.")
    ] = 2.0,
    instances: Annotated[
        str, typer.Option("--instances", metavar="N", help="Copies of the model; fill: all CPUs that it was timed on.")
    ] = "1",
    into: Annotated[
        Path | None, typer.Option("--into", metavar="REPO", help="Add it to a model repository as a version.")
    ] = None,
    timeout_ms: Annotated[
        float, typer.Option("--timeout-ms", help="Longest time to an answer; clients may ask for less.")
    ] = _TIMEOUT_MS,
    access: Annotated[
        Literal["open", "token"], typer.Option("--access", help="fastapi: token: AUTH_TOKEN has to be sent.")
    ] = "open",
    rate_limit: Annotated[
        float | None, typer.Option("--rate-limit", help="fastapi: requests per second that one client may make.")
    ] = None,
    cache: Annotated[
        Literal["none", "memory", "redis"],
        typer.Option("--cache", help="Where answers are kept for requests that come again; redis: fastapi only."),
    ] = "none",
    cache_mb: Annotated[int, typer.Option("--cache-mb", help="Size of the cache in memory, in MB.")] = _CACHE_MB,
    fallback: Annotated[
        str | None, typer.Option("--fallback", metavar="REF", help="fastapi: who answers where the model fails.")
    ] = None,
    traces: Annotated[
        Literal["none", "otlp"], typer.Option("--traces", help="fastapi: otlp: OpenTelemetry spans of requests.")
    ] = "none",
    engine_fallback: Annotated[
        Literal["none", "onnxruntime"],
        typer.Option("--engine-fallback", help="triton: who serves where the card's engine cannot be built."),
    ] = "none",
    triton_backend: Annotated[
        Literal["usual", "own", "python"],
        typer.Option("--triton-backend", help="triton: its own backend, or Python with the library that was scored."),
    ] = "usual",
    limit_threads: Annotated[
        int | None, typer.Option("--limit-threads", help="triton: threads that all of its models may take at a time.")
    ] = None,
    priority: Annotated[
        int, typer.Option("--priority", help="triton: with limited threads; 2 gets half the turns of 1.")
    ] = 1,
    *,
    activate: Annotated[bool, typer.Option("--activate", help="With --into: serve this version from now on.")] = False,
    k8s: Annotated[bool, typer.Option("--k8s", help="Add plain Kubernetes manifests, in k8s/.")] = False,
    build: Annotated[bool, typer.Option("--build", help="Build the image too: docker, podman or buildah.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Also package a candidate.")] = False,
    store: Annotated[Path | None, typer.Option("--store", help="The store, ./artifacts without it.")] = None,
) -> None:
    """Lay an artifact out for a server: model, configuration, golden samples, client, Dockerfile.

    With --into it becomes a version of a model repository.
    """
    from mlpack.api.package import package
    from mlpack.api.package_into import package_into
    from mlpack.errors import UsageError
    from mlpack.runtimes import RUNTIMES

    if not runtime:
        raise UsageError(
            "which server? --runtime is missing",
            " or ".join(f"--runtime {name}" for name in RUNTIMES.names()),
        )
    copies = _copies(instances)
    if into is not None:
        of_a_folder = {
            "--out": out is not None, "--k8s": k8s, "--build": build, "--timeout-ms": timeout_ms != _TIMEOUT_MS,
            "--access": access != "open", "--rate-limit": rate_limit is not None, "--cache": cache != "none",
            "--cache-mb": cache_mb != _CACHE_MB, "--fallback": fallback is not None, "--traces": traces != "none",
            "--engine-fallback": engine_fallback != "none",
        }  # fmt: skip
        if given := [flag for flag, is_given in of_a_folder.items() if is_given]:
            raise UsageError(f"--into adds to a repository, where {', '.join(given)} means nothing", "leave it out")
        placed = package_into(
            ref,
            runtime=runtime,
            into=into,
            activate=activate,
            max_batch=max_batch,
            queue_delay_ms=queue_delay_ms,
            instances=copies,
            triton_backend=triton_backend,
            limit_threads=limit_threads,
            priority=priority,
            force=force,
            store=store,
        )
        screen.result(placed.model_dump(mode="json"), placed)
        return
    if activate:
        raise UsageError("--activate is about a model repository", "--into REPO --activate")
    packaged = package(
        ref,
        runtime=runtime,
        out=out,
        max_batch=max_batch,
        queue_delay_ms=queue_delay_ms,
        instances=copies,
        k8s=k8s,
        build=build,
        timeout_ms=timeout_ms,
        access=access,
        rate_limit=rate_limit,
        cache=cache,
        cache_mb=cache_mb,
        fallback=fallback,
        traces=traces,
        engine_fallback=engine_fallback,
        triton_backend=triton_backend,
        limit_threads=limit_threads,
        priority=priority,
        force=force,
        store=store,
    )
    screen.result(packaged.model_dump(mode="json"), packaged)


def _copies(instances: str) -> int | Literal["fill"]:
    """The number, or the word.

    Raises:
        UsageError: it is neither.
    """
    from mlpack.errors import UsageError

    if instances == "fill":
        return "fill"
    try:
        return int(instances)
    except ValueError as error:
        raise UsageError(f"--instances {instances} is no whole number", "--instances 2, or --instances fill") from error
