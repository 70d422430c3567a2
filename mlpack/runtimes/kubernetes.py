"""Plain Kubernetes manifests of a package: Deployment, Service, PodDisruptionBudget, HorizontalPodAutoscaler."""

from __future__ import annotations

import json
import math
import re
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

from mlpack.core.words import Frozen
from mlpack.runtimes.package_files import facts, on_gpu, render

if TYPE_CHECKING:
    from mlpack.core.artifact import Stored
    from mlpack.core.runtime import PackageOptions
    from mlpack.runtimes.package_files import Batching

_KINDS = ("deployment", "service", "poddisruptionbudget", "horizontalpodautoscaler")
_MEASURED = "profile_latency.json"
_MIB = 2**20
# What a process with a session takes beside the weights where nothing was measured: Python, the library, activations.
_USUAL_BYTES = 512 * _MIB
# Weights are held once as read and once as the library lays them out.
_COPIES = 2
# A request is what was measured and half as much again: buffers of requests that wait, larger batches.
_HEADROOM = 1.5
_STEP_MIB = 64
_LABEL = 63


class Port(Frozen):
    """A port that the server listens on."""

    name: Literal["http", "grpc", "metrics"]
    number: int


class Pod(Frozen):
    """What a server's container needs beside CPU and memory. `user` is the number that its image runs it as.

    `variables` are those that only who runs it can know; they are taken from a Secret. `command` exits 0 where the
    server is ready; None: it answers as the V2 protocol has it.
    """

    ports: tuple[Port, ...]
    user: int
    shared_memory_mib: int | None = None
    cache: str | None = None
    command: tuple[str, ...] | None = None
    start_seconds: int = 60
    stop_seconds: int = 30
    variables: tuple[str, ...] = ()
    own_bytes: int = 0


def manifests(stored: Stored, options: PackageOptions, shared_by: Batching, pod: Pod) -> dict[str, str]:
    """The manifests by relative path, where they are asked for; comments in them say where a number is from."""
    if options.manifests == "none":
        return {}
    artifact = stored.artifact
    request_mib, origin = _memory(stored, options, pod)
    values = {
        **facts(stored, shared_by),
        "label": dns_label(artifact.name),
        "cpus": (artifact.model.backend_options.threads or 1) * options.instances,
        "memory_mib": request_mib,
        "memory_origin": origin,
        "pod": pod,
        "gpu": on_gpu(artifact),
        "instances": options.instances,
    }
    return {f"k8s/{kind}.yaml": render(f"k8s/{kind}.yaml.j2", **values) for kind in _KINDS}


def dns_label(name: str) -> str:
    """A name that Kubernetes takes for a Service: RFC 1035, letters, digits and dashes, a letter first."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return (plain if plain[:1].isalpha() else f"model-{plain}")[:_LABEL].rstrip("-")


def _memory(stored: Stored, options: PackageOptions, pod: Pod) -> tuple[int, str]:
    """MiB to ask for, and where they are from."""
    measured = _measured_bytes(stored)
    each = measured or _COPIES * stored.artifact.model.size_bytes + _USUAL_BYTES
    whole = (each * options.instances + pod.own_bytes) * _HEADROOM
    mib = _STEP_MIB * math.ceil(whole / _MIB / _STEP_MIB)
    told = (
        f"{measured / _MIB:.0f} MiB, the measured peak of a process that ran the model"
        if measured
        else f"not measured; {each / _MIB:.0f} MiB, twice the weights and {_USUAL_BYTES // _MIB} MiB"
    )
    copies = f", times {options.instances} instances" if options.instances > 1 else ""
    own = f", {pod.own_bytes // _MIB} MiB for the server beside it" if pod.own_bytes else ""
    return mib, f"{told}{copies}{own}, and half as much again"


def _measured_bytes(stored: Stored) -> int | None:
    """Peak memory of a process that loads and runs the model, the median over launches; None: it was not timed."""
    report = stored.path / "reports" / _MEASURED
    if on_gpu(stored.artifact) or not report.is_file():
        return None
    metrics: dict[str, Any] = json.loads(report.read_bytes()).get("metrics", {})
    launches = metrics.get("peak_rss_bytes", {}).get("optimized")
    return int(median(launches)) if launches else None
