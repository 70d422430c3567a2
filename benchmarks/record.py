"""What every benchmark shares: where results lie, what the machine was, and how mlpack is started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

import mlpack
from mlpack.api.records import environment
from mlpack.core.machine import cpu_microarchitecture
from mlpack.core.stage import Stage
from mlpack.core.threads import usable_threads
from mlpack.stages import STAGES

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
MLPACK = Path(sys.executable).with_name("mlpack")
QUICK = ("--set", "profile_latency.launches=2", "--set", "profile_latency.seconds=0.05")
# What is not judged on all of `eval.npz` as it lies there.
_OTHERWISE = {
    "digit-lines": ("{0}/model.py:model", "--data", "{0}/eval.npz", "--metric", "{0}/metric.py:lines_right"),
    "digits-pairs": ("{0}/model.py:model", "--data", "{0}/eval.npz", "--output", "sum"),
    "emoji-efficientnet": (
        "{0}/model.py:model", "--data", "{0}/images", "--preprocess", "{0}/preprocess.yaml",
    ),
    "resnet-18": ("benchmarks/models/resnet18.py:model", "--data", "benchmarks/models/resnet18.py:data"),
    "bert-base": ("benchmarks/models/bert_base.py:model", "--data", "benchmarks/models/bert_base.py:data"),
    "words-gru": (
        "{0}/model.py:model", "--data", "{0}/words.csv", "--tokenizer", "{0}/tokenizer", "--columns", "cluster=concept",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """One command that has ended: its exit code, its JSON document, and its wall-clock seconds."""

    code: int
    document: dict[str, Any]
    seconds: float

    @property
    def error(self) -> str | None:
        """The message of the error it ended with, where there is one."""
        told = self.document.get("error")
        return told["message"] if told else None


def mlpack_json(words: list[str], cache: Path) -> Ended:
    """Run `mlpack WORDS --json` from the repository's root with this cache; nothing of the user's own settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLPACK_")}
    started = time.perf_counter()
    done = subprocess.run(
        [str(MLPACK), *words, "--json"],
        cwd=ROOT,
        env={**kept, "MLPACK_CACHE": str(cache)},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - started
    return Ended(done.returncode, json.loads(done.stdout), seconds)


def finished_stages(cache: Path) -> list[dict[str, Any]]:
    """The record of every stage in a cache, with `folder`, and when they `ended` (s), in that order."""
    files = sorted((cache / "stages").glob("*/*/stage.json"), key=lambda file: file.stat().st_mtime_ns)
    return [
        {**json.loads(file.read_text()), "folder": str(file.parent), "ended": file.stat().st_mtime} for file in files
    ]


def is_timing(record: dict[str, Any]) -> bool:
    """Whether a stage's record is of a timing run."""
    stage: type[Stage] = STAGES[record["stage"]]
    return stage.timing


def sample(name: str) -> list[str]:
    """The words that name a sample model, or one of benchmarks/models, and its data."""
    words = _OTHERWISE.get(name, ("{0}/model.py:model", "--data", "{0}/eval.npz"))
    return [word.format(f"sample_models/{name}") for word in words]


def write(name: str, content: dict[str, Any]) -> Path:
    """Write one result with the machine, versions and date that it belongs to."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({**about(), **content}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"written: {path.relative_to(ROOT)}")
    return path


def read(name: str) -> dict[str, Any] | None:
    """A result as it was written, or None where there is none yet."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def about() -> dict[str, Any]:
    """When, with what and on what: without it a number means nothing. `load` tells a busy machine from a quiet one."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "mlpack": mlpack.__version__,
        "machine": {
            "microarchitecture": cpu_microarchitecture(),
            "threads": usable_threads(),
            "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
            "load_average": [round(load, 2) for load in os.getloadavg()],
        },
        **environment(),
    }
