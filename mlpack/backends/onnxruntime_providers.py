"""The providers of a session: their names and options as the library wants them, and which of them got which nodes."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from mlpack.core.provider import Cuda, TensorRt
from mlpack.core.settings import COMPILED, load_settings

if TYPE_CHECKING:
    import onnxruntime as ort

    from mlpack.core.backend_options import BackendOptions
    from mlpack.core.model import Model

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
RECORDED = "session.record_ep_graph_assignment_info"
# The TensorRT provider has no option for it: NVIDIA's libraries read this variable when they are loaded.
_TF32 = "NVIDIA_TF32_OVERRIDE"
MIB = 2**20
Options = dict[str, str]


def provider(options: BackendOptions) -> Cuda | TensorRt | None:
    """What computes: None is the CPU; on a card it is CUDA, unless something else was asked for."""
    if options.device == "cpu":
        return None
    return options.provider or Cuda()


def wanted(options: BackendOptions) -> str:
    """The library's name of the provider that computes."""
    return {Cuda: CUDA, TensorRt: TENSORRT, type(None): CPU}[type(provider(options))]


def providers(model: Model, options: BackendOptions) -> list[tuple[str, Options]]:
    """The providers in the order in which they are offered the nodes of the graph."""
    chosen = provider(options)
    if chosen is None:
        return [(CPU, {})]
    if isinstance(chosen, Cuda):
        return [(CUDA, _cuda(chosen))]
    return [(TENSORRT, _tensorrt(chosen, model)), (CUDA, _cuda(Cuda(tf32=chosen.tf32)))]


def keep_float32(options: BackendOptions) -> None:
    """Before NVIDIA's libraries are loaded: float32 is not to be multiplied in fewer bits unasked."""
    chosen = provider(options)
    if chosen is not None and not chosen.tf32:
        os.environ[_TF32] = "0"


def _cuda(chosen: Cuda) -> Options:
    told = {"use_tf32": str(int(chosen.tf32)), "cudnn_conv_algo_search": chosen.convolutions.upper()}
    if chosen.memory_mib is not None:
        told["gpu_mem_limit"] = str(chosen.memory_mib * MIB)
    return told


def _tensorrt(chosen: TensorRt, model: Model) -> Options:
    """Numerics are no options: a graph with casts and Q/DQ is compiled as it is typed, as TensorRT 11 wants it.

    Engines are kept in mlpack's cache. The library names their files by the graph's structure, so those of one model
    lie in a folder of its own: other weights would be taken for the same.
    """
    kept = load_settings(Path.cwd()).cache / COMPILED / "tensorrt"
    engines = kept / model.fingerprint()[:16]
    engines.mkdir(parents=True, exist_ok=True)
    told = {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(engines),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(kept),
        "trt_builder_optimization_level": str(chosen.level),
    }
    if chosen.workspace_mib is not None:
        told["trt_max_workspace_size"] = str(chosen.workspace_mib * MIB)
    return told


def nodes_by_provider(session: ort.InferenceSession) -> Counter[str]:
    """How many nodes each provider was given, in a session that was told to record it."""
    found: Counter[str] = Counter()
    for part in session.get_provider_graph_assignment_info():
        found[part.ep_name] += len(part.get_nodes())
    return found
