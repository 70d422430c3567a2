"""Olive's search over the options of its OnnxQuantization pass: the fastest model that it finds inside the limit.

It measures accuracy by mlpack's metric on the rows that mlpack chooses on, and latency as it always does. Olive loads
this file as its user script.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import spec_from_file_location
from typing import TYPE_CHECKING, Any

import int8_worker
import numpy as np

if TYPE_CHECKING:
    from pathlib import Path
    from types import CodeType

POINTS = 24
MOST_SECONDS = 300
_ROWS, _SCORE = "calibration_rows", "value"
_MENDED = {
    "olive.evaluator.metric": {
        "return backend if isinstance(backend, str) else backend.model_dump()": "return backend",
        "return metric_config.model_dump()": "return metric_config and metric_config.model_dump()",
        "user_config: Optional[ConfigBase] = Field(": "user_config: Optional[SerializeAsAny[ConfigBase]] = Field(",
        "from pydantic import Field,": "from pydantic import SerializeAsAny, Field,",
    },
    "olive.common.config_utils": {"value = value.lower()": "value = str(value).lower()"},
}


def search(job: dict[str, Any], place: Path) -> dict[str, Any]:
    """The best of so many points: static and dynamic, per channel or not, methods and formats of onnxruntime's.

    Raises:
        ValueError: nothing that it tried is inside the limit.
    """
    sys.meta_path.insert(0, _Finder)
    from olive import run
    from olive.data.component.dataset import BaseDataset
    from olive.data.registry import Registry

    rows = [
        {name: array[index] for name, array in batch.items()}
        for batch in int8_worker.feeds(job, "calibration")
        for index in range(len(batch[job["inputs"][0]]))
    ]
    Registry.register_dataset(_ROWS)(lambda **_: BaseDataset(rows))
    clock = int8_worker.Clock()
    done = run(_config(job, place))
    best = done.get_best_candidate()
    if best is None:
        raise ValueError(f"no output model after {POINTS} points or {MOST_SECONDS} s")
    measured = {name: told["value"] for name, told in best.metrics_value.items()}
    return {**clock.told(best.model_path), "found": measured}


class _Mended(SourceFileLoader):
    """Olive 0.13 cannot start with a metric of one's own: it trips over what is None and forgets the function."""

    def get_code(self, fullname: str) -> CodeType:
        source = self.get_data(self.path).decode()
        for wrong, right in _MENDED[fullname].items():
            if wrong not in source:
                raise ImportError(f"another Olive than 0.13: no {wrong!r} in {fullname}")
            source = source.replace(wrong, right)
        return compile(source, self.path, "exec")


class _Finder(PathFinder):
    """Finds those files for that loader."""

    @classmethod
    def find_spec(cls, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if fullname not in _MENDED:
            return None
        found = super().find_spec(fullname, path, target)
        assert found is not None
        assert found.origin is not None
        return spec_from_file_location(fullname, found.origin, loader=_Mended(fullname, found.origin))


def _config(job: dict[str, Any], place: Path) -> dict[str, Any]:
    limit = {"type": "percent-max-degradation", "value": float(job["limit"].rstrip("%"))}
    score = {
        "user_script": __file__, "evaluate_func": "score",
        "evaluate_func_kwargs": {"job": {name: job[name] for name in ("place", "metric", "output", "inputs")}},
    }  # fmt: skip
    metrics = [
        {
            "name": "latency", "type": "latency", "data_config": "one",
            "sub_types": [{"name": "p50", "priority": 1}],
        },
        {
            "name": "kept", "type": "custom", "user_config": score,
            "sub_types": [{"name": _SCORE, "priority": 2, "higher_is_better": job["higher"], "goal": limit}],
        },
    ]  # fmt: skip
    return {
        "input_model": {"type": "ONNXModel", "model_path": job["graph"]},
        "systems": {
            "here": {
                "type": "LocalSystem",
                "accelerators": [{"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}],
            }
        },
        "data_configs": [_data("one", 1), _data("all", int8_worker.CALIBRATION_BATCH)],
        "evaluators": {"both": {"metrics": metrics}},
        "passes": {"quantize": {"type": "OnnxQuantization", "data_config": "all"}},
        "search_strategy": {
            "execution_order": "joint", "sampler": "tpe", "sampler_config": {"max_samples": POINTS, "seed": 0},
            "max_iter": POINTS, "max_time": MOST_SECONDS,
        },
        "host": "here", "target": "here", "evaluator": "both",
        "output_dir": str(place / "found"), "cache_dir": str(place / "cache"), "log_severity_level": 3,
    }  # fmt: skip


def _data(name: str, batch: int) -> dict[str, Any]:
    return {"name": name, "load_dataset_config": {"type": _ROWS}, "dataloader_config": {"batch_size": batch}}


def score(model: Any, device: Any, providers: Any, job: dict[str, Any]) -> float:
    """What Olive calls to judge a model: the metric over the choosing rows."""
    del device, providers
    import onnxruntime

    from mlpack.measure.metrics import join, metric

    session = onnxruntime.InferenceSession(model.model_path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    checked = list(int8_worker.batches(job, "choosing"))
    measured = metric(job["metric"], labels=int8_worker.LABELS in checked[0], output=job["output"])
    kept = []
    for batch in checked:
        found = session.run(names, {name: np.ascontiguousarray(batch[name]) for name in job["inputs"]})
        kept.append(measured.keep(dict(zip(names, found, strict=True)), batch.get(int8_worker.LABELS)))
    return measured.reduce(join(kept))
