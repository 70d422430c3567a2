"""Ranges that were found once are kept: all static flavours of a graph, and milder forms of them, need the same."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from pydantic import TypeAdapter

from mlpack import quantization
from mlpack.core.artifact import canonical
from mlpack.core.filesystem import write_atomic
from mlpack.core.model import sha256_of
from mlpack.datasets.cache import cache_folder
from mlpack.quantization.checkpoint import Checkpoint
from mlpack.quantization.range_table import TensorRange

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_RANGES = TypeAdapter(list[TensorRange])


def kept_ranges(
    graph: Path, tensors: Sequence[str], found_by: dict[str, Any], find: Callable[[Checkpoint], list[TensorRange]]
) -> list[TensorRange]:
    """The ranges of these tensors: those kept of this graph, by its content, and `found_by`; else what `find` gives.

    `found_by` is all else that they depend on: rows, method, options, threads. What is kept for more tensors serves.
    Two that look for the same wait for one another; what a killed one had seen is gone on from.
    """
    files = [graph, *sorted(graph.parent.glob("*.data"))]
    content = {
        "graph": [sha256_of(path) for path in files],
        "code": [sha256_of(path) for path in sorted(Path(quantization.__file__).parent.glob("*.py"))],
        "onnxruntime": version("onnxruntime"),
        **found_by,
    }
    key = hashlib.sha256(canonical(content)).hexdigest()
    folder = cache_folder() / "ranges" / key
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        for path in sorted(folder.glob("*.json")):
            known = {each.tensor: each for each in _RANGES.validate_json(path.read_bytes())}
            if known.keys() >= set(tensors):
                return [known[tensor] for tensor in tensors]
        which = hashlib.sha256(json.dumps(sorted(tensors)).encode()).hexdigest()[:16]
        found = find(Checkpoint(folder / f"{which}.npz"))
        write_atomic(folder / f"{which}.json", _RANGES.dump_json(found))
    return found
