"""`make gpu` without a card: the same script on the CPU, its pieces, its page, and the list of wheels."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
from repository import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import gpu
import gpu_page
import gpu_wheels

from mlpack.core.machine import Device, nvidia_devices

TINY = ("--models", "tiny-mlp", "--batches", "1", "4", "--seconds", "0.02", "--launches", "1", "--device", "cpu")


def piece(folder, *words):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLPACK_")}
    places = ("--out", folder / "out", "--work", folder / "work")
    # A lock of its own for timings: nobody looks at them.
    own = {"MLPACK_CACHE": str(folder / "cache"), "XDG_CACHE_HOME": str(folder)}
    return subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "gpu.py", *TINY, *places, *words],
        env={**kept, **own}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_pieces_measure_what_runs_here_and_say_why_the_rest_does_not(tmp_path):
    only = ("tiny-mlp torch fp32", "tiny-mlp torch bf16", "onnxruntime int8", "cuda_graph fp32", "tensorrt fp16", "fp8")
    done = piece(tmp_path, "--minutes", "0", "--only", *only)
    assert (done.returncode, done.stdout.strip()) == (1, "9 of 9 left: start it again"), done.stderr
    assert not (tmp_path / "out").exists()
    done = piece(tmp_path, "--only", *only)
    assert done.returncode == 0, done.stdout + done.stderr
    (results,) = (tmp_path / "out").glob("*.json")
    (page,) = (tmp_path / "out").glob("*.md")
    assert (results.stem, page.stem) == ("gpu-cpu", "gpu-cpu")
    content = json.loads(results.read_text())
    facts = content["facts"]["tiny-mlp"]
    assert facts["operations"]["4"] == 4 * facts["operations"]["1"] > 0
    assert content["failed"] == {}
    ran = set(content["found"])
    assert {"tiny-mlp torch fp32", "tiny-mlp onnxruntime int8"} <= ran
    for entry in content["found"].values():
        (launch,) = entry["launches"]
        assert launch["error"] < {"fp32": 1e-5, "bf16": 3e-2, "int8": 1e-1}[entry["numerics"]]
        for block in launch["batches"].values():
            assert block["device"] is None, "a CPU has no clock of its own"
            assert block["wall"]["calls"] >= 1
            assert block["samples_per_s"] > 0
            assert block["request_p50_ms"] > 0
            if entry["numerics"] in facts["floor_ms"]["1"]:
                assert block["wall"]["p50_ms"] > facts["floor_ms"]["1"][entry["numerics"]]
    why = content["left_out"]
    assert why["tiny-mlp torch_cuda_graph fp32"] == "CUDA graphs are recorded on a CUDA device"
    assert "TensorRT builds for NVIDIA cards" in why["tiny-mlp tensorrt fp16"]
    assert why["tiny-mlp tensorrt fp8"].endswith("has no fp8")
    assert why["tiny-mlp torch_tensorrt fp16"] == "TensorRT compiles for a CUDA device"
    assert page.read_text() == gpu_page.page(content)
    for name in (*why, "a trial of the script, not a measurement"):
        assert name in page.read_text()
    before = results.read_bytes()
    again = piece(tmp_path, "--only", *only)
    assert again.returncode == 0
    assert "launch" not in again.stdout, "nothing is measured twice"
    assert json.loads(results.read_bytes())["found"] == json.loads(before)["found"]
    other = piece(tmp_path, "--only", *only, "--batches", "2")
    assert other.returncode == 1
    assert "remove it, or measure alike" in other.stderr


@pytest.mark.slow
def test_the_tests_marked_gpu_are_run_and_counted(tmp_path):
    done = piece(tmp_path, "--only", "tests")
    assert done.returncode == 0, done.stdout + done.stderr
    tests = json.loads((tmp_path / "out" / "gpu-cpu.json").read_text())["tests"]
    assert tests["failures"] == {}
    if not nvidia_devices():
        assert tests["passed"] == 0
        assert any("test_torch_device" in name for name in tests["skipped"])
    assert (
        f"{tests['passed']} passed, 0 failed, {len(tests['skipped'])} skipped"
        in (tmp_path / "out" / "gpu-cpu.md").read_text()
    )


@pytest.mark.skipif(bool(nvidia_devices()), reason="there is a card here")
def test_without_a_card_it_says_so():
    done = subprocess.run([sys.executable, ROOT / "benchmarks" / "gpu.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert done.stderr == "there is no NVIDIA card here: --device cpu tries the script without one\n"


def test_a_card_that_nobody_knows_has_the_numerics_of_its_capability():
    card = gpu.unknown_card(Device("NVIDIA RTX 9999 Ti", 1, "8.6"))
    assert (card.name, card.here, card.peak) == ("nvidia-rtx-9999-ti", True, {})
    assert card.numerics == ("fp32", "fp16", "int8", "bf16", "tf32")
    assert {"fp8", "fp4"} <= set(gpu.unknown_card(Device("B", 1, "12.0")).numerics)
    assert gpu.unknown_card(Device("old", 1, None)).numerics == ("fp32", "fp16")


def test_what_takes_too_long_is_killed_with_all_that_it_started(tmp_path):
    mark = tmp_path / "alive"
    child = f"import time; time.sleep(1.5); open({str(mark)!r}, 'w')"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    assert gpu.called([sys.executable, "-c", parent], 0.7) is None
    assert gpu.called([sys.executable, "-c", "import time; time.sleep(2)"], 60) == (0, "", "")
    assert not mark.exists()
    code, out, err = gpu.called([sys.executable, "-c", "print(1); raise SystemExit('no')"], 60)
    assert (code, out, err) == (1, "1\n", "no\n")


def launch(p50, *, device=True, p99=None, energy=None):
    clock = {"calls": 400, "p50_ms": p50, "p99_ms": p99}
    block = {
        "device": clock if device else None, "wall": clock, "samples_per_s": 1e3 / p50, "request_p50_ms": 2 * p50,
        "energy_mj": energy, "slowed": ["heat"] if energy else [],
    }  # fmt: skip
    return {"error": 1e-3, "batches": {"1": block}}


def test_the_page_has_intervals_over_launches_and_no_number_that_was_not_measured():
    found = {
        "net torch fp16": [launch(1.0, p99=1.5, energy=8.0), launch(1.1, p99=1.7, energy=8.2)],
        "net onnxruntime int8": [launch(2.0, device=False)],
    }
    content = {
        "title": "A card", "date": "2026-11-30T00:00:00", "gpu": "NVIDIA X", "cpu": "c", "driver": "580.1",
        "machine": {"threads": 4}, "python": "3.12", "libraries": {"torch": "2.13.0", "scipy": "1"}, "mlpack": "0",
        "quick": False, "settings": {"batches": [1]}, "tests": None, "failed": {},
        "facts": {"net": {"operations": {"1": 4e9}, "floor_ms": {"1": {"fp16": 0.5}}}},
        "left_out": {"net tensorrt fp8": "no\n| library"},
        "found": {
            name: dict(zip(("model", "backend", "numerics"), name.split(), strict=True)) | {"launches": launches}
            for name, launches in found.items()
        },
    }  # fmt: skip
    text = gpu_page.page(content)
    cells = {tuple(row[:2]): row[2:] for line in text.splitlines() if (row := line.strip("| ").split(" | "))[0] != line}
    batch, _, p50, p99, request, energy, floor, times, flops, error = cells["torch", "fp16"]
    assert (batch, p99, request, energy, floor, times) == ("1", "1.6 ms", "2.1 ms", "8.1 mJ", "0.5 ms", "2.1")
    assert re.fullmatch(r"1\.05 \[[\d.]+, [\d.]+\] ms", p50)
    assert (flops, error) == ("3.81", "1.0e-03")
    _, _, p50, p99, _, energy, floor, times, _, _ = cells["onnxruntime", "int8"]
    assert p50 == "2 ms w", "one launch has no interval, and the wall's clock is told"
    assert (p99, energy, floor, times) == ("–", "–", "–", "–")
    assert "| `net tensorrt fp8` | no \\| library |" in text
    assert "ran below its clocks at times: heat" in text
    assert "driver 580.1, 4 threads; Python 3.12, torch 2.13.0, mlpack 0" in text
    assert "not run yet" in text


def test_wheels_are_those_that_the_other_machine_lacks():
    listed = gpu_wheels.listed((ROOT / "benchmarks" / "gpu-wheels.txt").read_text())
    assert ["onnxruntime-gpu", "onnxruntime"] in listed
    flat = [name for each in listed for name in each]
    assert len(flat) == len(set(flat))
    pins = {gpu_wheels.normal(line.partition("==")[0]) for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert set(flat) - pins == {"torchao", "onnxruntime-gpu"}, "pinned, but for what is not installed for the tests"
    assert "torch" not in flat, "it is that machine's own"
    assert gpu_wheels.names("ml_dtypes==0.5\nfoo @ file:///x\nPyYAML==6\n") == {"ml-dtypes", "foo", "pyyaml"}
