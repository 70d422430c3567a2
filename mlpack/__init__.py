"""From a trained PyTorch model to one you dare to put in production.

Each command of the command line is one function here: `mlpack.optimize(...)`, `mlpack.bench(...)` and so on.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

__version__ = "0.1.0"

# Since 1.29 onnxruntime reports sessions and models to its makers unless this is set before it is loaded.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

_VERBS = (
    "bench", "bench_server", "check", "diff", "doctor", "explain", "gate", "gc", "init", "list_artifacts", "load",
    "logs", "optimize", "package", "package_into", "plan", "predict", "recipes", "report", "rm", "save", "serve",
    "show", "tag", "targets", "verify",
)  # fmt: skip

__all__ = ["__version__", *_VERBS]  # noqa: PLE0604 - the verbs are names of functions, loaded on demand below


def __getattr__(name: str) -> Any:
    """Load a verb when it is first asked for, so that `import mlpack` imports nothing heavy."""
    if name in _VERBS:
        return getattr(importlib.import_module(f"mlpack.api.{name}"), name)
    raise AttributeError(name)
