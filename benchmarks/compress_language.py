"""A small language model in four bits: mlpack beside gptqmodel and llm-compressor, each as its documentation has it.

The model is a Llama that is trained here (`models/small_llama.py`, some minutes); all calibrate on the same
rows. The values that each leaves are judged by perplexity on the confirming rows. Speed is over the same float model:
mlpack's graphs and PyTorch eager take turns, and each library times its own model beside PyTorch eager in its process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import compress_int4
import opening
import record
import tables

if TYPE_CHECKING:
    from mlpack.core.model import Model

MODEL = "small-llama"
WORKER = Path(__file__).with_name("compress_language_worker.py")
OURS = ("rtn", "hqq", "gptq", "gptq, symmetric", "gptq, float tables")
THEIRS = ("gptqmodel", "llm-compressor")
BLOCKS = (32, 128)
EAGER = "eager"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gptqmodel", type=Path, metavar="PYTHON", help="the Python of an environment that has it")
    parser.add_argument("--llm-compressor", type=Path, metavar="PYTHON")
    parser.add_argument("--model", type=Path, help="train into this folder, or take what was trained there")
    parser.add_argument("--blocks", nargs="+", type=int, default=list(BLOCKS), choices=(16, 32, 64, 128))
    parser.add_argument("--quick", action="store_true", help="short training and launches: a trial of the script")
    given = parser.parse_args()
    pythons = {tool: path for tool in THEIRS if (path := getattr(given, tool.replace("-", "_"))) is not None}
    with tempfile.TemporaryDirectory(prefix="compress-language-") as name:
        folder = given.model or Path(name) / "model"
        if not (folder / "eval.npz").is_file():
            train(folder, quick=given.quick)
        rows = Bench(folder, Path(name), pythons, quick=given.quick).rows(given.blocks)
    record.write("compress_language", {"model": MODEL, "rows": rows, "quick": given.quick})
    tables.render_all()
    return 0


def train(folder: Path, *, quick: bool) -> None:
    """In a process of its own: what stages fork from stays small."""
    words = [sys.executable, "-m", "models.small_llama", str(folder.resolve()), *(["20"] if quick else [])]
    subprocess.run(words, cwd=Path(__file__).parent, check=True)


class Bench:
    """The float graph of the language model, and what judges and times what is made of it."""

    def __init__(self, folder: Path, place: Path, pythons: dict[str, Path], *, quick: bool) -> None:
        self.folder, self.place, self.pythons = folder, place, pythons
        self.flags = ["--data", str(folder / "eval.npz"), "--metric", "perplexity"]
        self.inner = compress_int4.Bench(MODEL, [str(folder), *self.flags], place, quick=quick)

    def rows(self, blocks: list[int]) -> list[dict[str, Any]]:
        """The float model, mlpack's and theirs by block size."""
        inner = self.inner
        compress_int4.write_calibration(inner.model, inner.context, self.place)
        float_graph = compress_int4.Made("", compress_int4.FLOAT, None, inner.model)
        made = [float_graph, *(inner.ours(label, block) for block in blocks for label in OURS)]
        opened = {f"c{at}": inner.opened(each) for at, each in enumerate(made)}
        assert inner.context.baseline is not None
        contenders = {label: model for label, model in opened.items() if model is not None}
        ms = inner.timed({**contenders, EAGER: inner.context.baseline})
        rows = []
        for each, (label, model) in zip(made, opened.items(), strict=True):
            row: dict[str, Any] = {"by": each.by, "method": each.method, "block": each.block, "error": each.error}
            if model is not None:
                faster = {batch: round(ms[EAGER][batch] / took, 3) for batch, took in ms[label].items()}
                row |= {"seconds": each.seconds, "peak_mb": each.peak_mb, "size_bytes": model.size_bytes}
                row |= {"faster": faster, "runs_as": "onnxruntime", **inner.judged(model)}
            rows.append(told(row))
        rows += [told(self.their_row(tool, block)) for block in blocks for tool in self.pythons]
        return rows

    def their_row(self, tool: str, block: int) -> dict[str, Any]:
        """The values that a library leaves, judged in the float graph; its own time, memory, size and speed."""
        row: dict[str, Any] = {"by": tool, "method": "gptq, symmetric", "block": block, "error": None}
        job = {
            "tool": tool, "block": block, "folder": str(self.folder), "place": str(self.place),
            "batch": compress_int4.BATCH, "threads": self.inner.context.threads,
        }  # fmt: skip
        words = [str(self.pythons[tool]), str(WORKER), json.dumps(job)]
        # Else it starts more workers than there are cores.
        quiet = {**os.environ, "GPTQMODEL_CPU_WORKERS": str(job["threads"]), "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(words, capture_output=True, text=True, check=False, env=quiet)
        if done.returncode:
            return row | {"error": done.stderr.strip().splitlines()[-1][:200]}
        found = json.loads(done.stdout.strip().splitlines()[-1])
        row |= {name: found[name] for name in ("seconds", "peak_mb", "size_bytes", "faster", "runs_as")}
        return row | self.inner.judged(self.graph_of(Path(found["values"])))

    def graph_of(self, folder: Path) -> Model:
        """The float graph of a folder, as onnxruntime serves it."""
        from mlpack.engine.run import run
        from mlpack.stages.compile import Compile

        graph = opening.opened([str(folder), *self.flags], self.place).simplified()
        return run(Compile(backend="onnxruntime"), graph, self.inner.context).model


def told(row: dict[str, Any]) -> dict[str, Any]:
    """The same, printed."""
    print(json.dumps(row), flush=True)
    return row


if __name__ == "__main__":
    sys.exit(main())
