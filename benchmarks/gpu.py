"""All that needs a card, in pieces: the tests marked `gpu`, then every way to run a model there, beside its floor.

A piece ends after `--minutes`; started again it goes on where it was, until every contender had its launches. Each
launch is a process of its own, and what it found is written at once to gpu-CARD.json and gpu-CARD.md. Needs no network:
torch is there, the rest comes from wheels (`make gpu-wheels` collects them elsewhere). What cannot run stands in the
page with the reason. `--device cpu` does the same without a card, to try the script.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import gpu_page
import record

from mlpack.core import machine, targets
from mlpack.core.installation import installed_version
from mlpack.core.target import Target

if TYPE_CHECKING:
    from collections.abc import Iterator

BATCHES = (1, 2, 4, 8, 16, 32, 64)
MODELS = ("resnet-18", "bert-base")
TESTS = "tests"
# What is mostly linear layers: torchao narrows nothing else.
LINEAR = {"bert-base", "reviews-minilm", "tiny-mlp"}
WAYS = {
    "torch": ("fp32", "bf16", "fp16"),
    "torch_cuda_graph": ("fp32", "bf16", "fp16"),
    "torch_compile": ("fp32", "bf16", "fp16"),
    "torchao": ("int8", "fp8"),
    "onnxruntime": ("fp32", "fp16", "int8"),
    "tensorrt": ("fp32", "fp16", "bf16", "int8", "fp8"),
    "torch_tensorrt": ("fp32", "fp16"),
}
# An item that takes longer is stuck; one that the piece has too little time left for is left to the next.
MOST_SECONDS, FEWEST_SECONDS = 300, 60
# Shorter timing runs are a trial of the script.
QUICK_SECONDS = 0.2
WORKER = Path(__file__).with_name("gpu_worker.py")
NOTHING_LEFT, SOMETHING_LEFT = 0, 1


@dataclass(frozen=True)
class Item:
    """One model on one backend in one kind of numerics; without a backend the facts that all of a model share."""

    model: str
    backend: str | None = None
    numerics: str = ""

    @property
    def name(self) -> str:
        """As `--only` finds it and the record has it."""
        return " ".join(word for word in (self.model, self.backend, self.numerics) if word)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--models", nargs="+", default=list(MODELS), help="benchmarks/models or sample_models")
    parser.add_argument("--batches", nargs="+", type=int, default=list(BATCHES))
    parser.add_argument("--seconds", type=float, default=1.0, help="for one batch size in one launch")
    parser.add_argument("--launches", type=int, default=3, help="of each contender, one after the other through all")
    parser.add_argument("--minutes", type=float, default=9.0, help="after which this piece ends")
    parser.add_argument("--only", nargs="+", default=[""], help="items with one of these in their name: 'torch fp16'")
    parser.add_argument("--again", action="store_true", help="try once more what was left out or failed")
    parser.add_argument("--out", type=Path, help="folder for the results and the page; else benchmarks/")
    parser.add_argument("--work", type=Path, default=record.ROOT / ".gpu", help="folder for what is made on the way")
    given = parser.parse_args()
    target = target_of(given.device)
    if target is None:
        print("there is no NVIDIA card here: --device cpu tries the script without one", file=sys.stderr)
        return 3
    return Piece(given, target).run()


def target_of(device: str) -> Target | None:
    """The card as the catalogue knows it, else as its driver tells; None: there is none."""
    if device == "cpu":
        return targets.this_machine()
    devices = machine.nvidia_devices()
    if not devices:
        return None
    known = next((each for each in targets.targets() if each.kind == "cuda" and each.here), None)
    return known or unknown_card(devices[0])


def unknown_card(device: machine.Device) -> Target:
    """A card that no row of the catalogue is for: its numerics follow from its compute capability, its rates do not."""
    capability = tuple(int(part) for part in (device.compute_capability or "0.0").split("."))
    since = {"int8": (7, 5), "bf16": (8, 0), "tf32": (8, 0), "fp8": (8, 9), "fp4": (10, 0)}
    return Target(
        name=re.sub(r"[^a-z0-9]+", "-", device.name.lower()).strip("-"),
        title=device.name,
        kind="cuda",
        here=True,
        compute_capability=device.compute_capability,
        numerics=("fp32", "fp16", *(name for name, first in since.items() if capability >= first)),
        rules=targets.NVIDIA_RULES,
        source="the driver",
        date=time.strftime("%Y-%m-%d"),
    )


class Piece:
    """Items until the time is over; the record is read before and written after each."""

    def __init__(self, given: argparse.Namespace, target: Target) -> None:
        self.given, self.target = given, target
        self.end = time.monotonic() + given.minutes * 60
        name = f"gpu-{target.name}"
        self.results = (given.out or record.RESULTS) / f"{name}.json"
        self.page = (given.out or record.ROOT / "benchmarks") / f"{name}.md"
        self.content = self._before()

    def _before(self) -> dict[str, Any]:
        settings = {
            "batches": self.given.batches, "seconds": self.given.seconds, "torch": installed_version("torch"),
        }  # fmt: skip
        fresh: dict[str, Any] = {
            "title": self.target.title, "device": self.given.device, "settings": settings,
            "tests": None, "facts": {}, "found": {}, "left_out": {}, "failed": {},
        }  # fmt: skip
        if not self.results.is_file():
            return fresh
        kept: dict[str, Any] = json.loads(self.results.read_text(encoding="utf-8"))
        if kept["settings"] != settings:
            raise SystemExit(f"{self.results} was measured with {kept['settings']}: remove it, or measure alike")
        if self.given.again:
            kept |= {"left_out": {}, "failed": {}}
        return kept

    def run(self) -> int:
        """Work through what is left; 0 once nothing is."""
        left = list(self._left())
        for position, (item, launch) in enumerate(left):
            remaining = self.end - time.monotonic()
            if remaining < FEWEST_SECONDS:
                print(f"{len(left) - position} of {len(left)} left: start it again")
                return SOMETHING_LEFT
            # What became known meanwhile of a contender holds for its further launches.
            if item.name in self.content["left_out"] or item.name in self.content["failed"]:
                continue
            started = time.monotonic()
            if not self._done(item, min(MOST_SECONDS, remaining), cut_short=remaining < MOST_SECONDS):
                print(f"{len(left) - position} of {len(left)} left: start it again")
                return SOMETHING_LEFT
            self._write()
            print(f"{item.name}, launch {launch + 1}: {time.monotonic() - started:.0f} s", flush=True)
        self._write()
        failed = self.content["failed"]
        print(f"nothing left; {len(failed)} failed, {len(self.content['left_out'])} left out: {self.page}")
        return SOMETHING_LEFT if failed else NOTHING_LEFT

    def _left(self) -> Iterator[tuple[Item, int]]:
        """Tests and facts once; then every contender once, before any has its second launch."""
        content = self.content
        if self._wanted(Item(TESTS)) and content["tests"] is None:
            yield Item(TESTS), 0
        for model in self.given.models:
            # Whatever else is asked for is held to them.
            if model not in content["facts"] and any(self._wanted(item) for item in self._contenders(model)):
                yield Item(model), 0
        for launch in range(self.given.launches):
            for model in self.given.models:
                for item in self._contenders(model):
                    known = len(content["found"].get(item.name, {}).get("launches", ()))
                    if self._wanted(item) and launch >= known:
                        yield item, launch

    def _contenders(self, model: str) -> Iterator[Item]:
        for backend, kinds in WAYS.items():
            if backend != "torchao" or model in LINEAR:
                yield from (Item(model, backend, numerics) for numerics in kinds)

    def _wanted(self, item: Item) -> bool:
        out = item.name in self.content["left_out"] or item.name in self.content["failed"]
        return not out and any(words in item.name for words in self.given.only)

    def _done(self, item: Item, limit_s: float, *, cut_short: bool) -> bool:
        """Do one item and keep what came of it; False where the piece's own end cut it short."""
        content = self.content
        if item.model == TESTS:
            told: dict[str, Any] | None = self._tests(limit_s)
        elif item.numerics and item.numerics not in {*self.target.numerics, "fp32"}:
            told = {"left_out": f"{self.target.title} has no {item.numerics}"}
        else:
            told = self._measured(item, limit_s)
        if told is None:
            if cut_short:
                return False
            told = {"failed": f"took more than {limit_s:.0f} s"}
        for why in ("left_out", "failed"):
            if why in told:
                content[why][item.name] = told[why]
                return True
        if item.model == TESTS:
            content["tests"] = told
        elif item.backend is None:
            content["facts"][item.model] = told
        else:
            entry = {"model": item.model, "backend": item.backend, "numerics": item.numerics, "launches": []}
            content["found"].setdefault(item.name, entry)["launches"].append(told)
        return True

    def _measured(self, item: Item, limit_s: float) -> dict[str, Any] | None:
        self.given.work.mkdir(parents=True, exist_ok=True)
        job = {
            "model": item.model, "backend": item.backend, "numerics": item.numerics, "device": self.given.device,
            "batches": self.given.batches, "seconds": self.given.seconds, "work": str(self.given.work.absolute()),
            "target": self.target.model_dump(mode="json"),
        }  # fmt: skip
        ended = called([sys.executable, str(WORKER), json.dumps(job)], limit_s)
        if ended is None:
            return None
        code, out, err = ended
        lines = out.strip().splitlines()
        if code == 0 and lines:
            told: dict[str, Any] = json.loads(lines[-1])
            return told
        last = next((line for line in reversed(err.strip().splitlines()) if line.strip()), "it said nothing")
        return {"failed": f"exit {code}: {last.strip()[:300]}"}

    def _tests(self, limit_s: float) -> dict[str, Any] | None:
        """The tests marked `gpu`, and of those that did not pass what pytest says of them."""
        files = [
            str(path)
            for path in sorted((record.ROOT / "tests").rglob("test_*.py"))
            if re.search(r"mark\.gpu\b", path.read_text(encoding="utf-8"))
        ]
        with tempfile.TemporaryDirectory() as folder:
            told = Path(folder) / "tests.xml"
            # A newer torch may warn of what the pinned one does not: that is no failure of a card.
            words = ["-q", "-m", "gpu", "-o", "filterwarnings=default", "--continue-on-collection-errors"]
            ended = called([sys.executable, "-m", "pytest", *words, f"--junitxml={told}", *files], limit_s)
            if ended is None:
                return None
            if not told.is_file():
                return {"failed": f"pytest: exit {ended[0]}: {ended[2].strip()[-300:]}"}
            cases = list(ET.parse(told).iter("testcase"))  # noqa: S314 - pytest wrote it a moment ago
        found: dict[str, Any] = {"passed": 0, "skipped": {}, "failures": {}}
        for case in cases:
            name = f"{case.get('classname', '').rpartition('.')[2]}: {case.get('name')}"
            wrong = next((each for each in case if each.tag in {"failure", "error", "skipped"}), None)
            if wrong is None:
                found["passed"] += 1
            else:
                kind = "skipped" if wrong.tag == "skipped" else "failures"
                found[kind][name] = (wrong.get("message") or "").splitlines()[0][:300]
        return found

    def _write(self) -> None:
        # Of the machine as it is in this piece: its load, its date.
        self.content |= {**record.about(), "driver": driver(), "quick": self.given.seconds < QUICK_SECONDS}
        self.results.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.content, indent=1, ensure_ascii=False) + "\n"
        unfinished = self.results.with_suffix(".tmp")
        unfinished.write_text(text, encoding="utf-8")
        unfinished.rename(self.results)
        self.page.write_text(gpu_page.page(self.content), encoding="utf-8")


def called(command: list[str], limit_s: float) -> tuple[int, str, str] | None:
    """Exit code and output of a program; None where it took longer, and it is killed with all that it started."""
    paths = [str(record.ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(
        command, cwd=record.ROOT, env=environment, text=True, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            out, err = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return None
    return process.returncode, out, err


def driver() -> str | None:
    """The version of the NVIDIA driver; None where there is none."""
    try:
        told = subprocess.run(
            ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
            capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return next(iter(told.stdout.split()), None) if told.returncode == 0 else None


if __name__ == "__main__":
    sys.exit(main())
