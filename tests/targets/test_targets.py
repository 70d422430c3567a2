"""The catalogue: every row has its source, and numerics follow from compute capability or instruction set."""

from __future__ import annotations

import re
from datetime import date
from urllib.parse import urlsplit

import pytest
from pydantic import ValidationError

from mlpack.core import machine
from mlpack.core.target import Target
from mlpack.core.targets import cpu_numerics, cpu_rules, is_here, load_target, rows, targets
from mlpack.core.threads import usable_threads
from mlpack.errors import UsageError

CATALOGUE = [*rows("cpu.yaml"), *rows("nvidia.yaml")]
NVIDIA = [target for target in targets() if target.kind == "cuda"]
NAMED_CPUS = [target for target in targets() if target.kind == "cpu" and target.name != "cpu"]


@pytest.mark.parametrize("row", CATALOGUE, ids=lambda row: row["name"])
def test_every_row_has_a_source_and_a_date(row):
    assert urlsplit(row["source"]).scheme == "https"
    assert urlsplit(row["source"]).path.strip("/")
    assert date.fromisoformat(row["date"]) >= date(2026, 1, 1)


@pytest.mark.parametrize("missing", ["source", "date"])
def test_a_row_without_source_or_date_is_refused(missing):
    row = {**load_target("t4").model_dump(), missing: ""}
    with pytest.raises(ValidationError):
        Target(**row)
    del row[missing]
    with pytest.raises(ValidationError):
        Target(**row)


def test_names_are_unique_and_the_ones_promised_are_there():
    names = [target.name for target in targets()]
    assert len(names) == len(set(names))
    promised = {"cpu", "t4", "v100", "a10", "a100", "l4", "l40s", "rtx4090", "h100", "h200", "b200", "orin"}
    assert promised <= set(names)


@pytest.mark.parametrize("target", NVIDIA, ids=lambda target: target.name)
def test_what_tensorrt_runs_follows_from_the_compute_capability(target):
    capability = float(target.compute_capability)
    since = {"int8": 7.5, "bf16": 8.0, "tf32": 8.0, "int4": 8.0, "fp8": 8.9, "fp4": 10.0}
    for numerics, first in since.items():
        assert (numerics in target.numerics) == (capability >= first), numerics
    assert {"fp32", "fp16"} <= set(target.numerics)
    assert set(target.peak) <= set(target.numerics)


@pytest.mark.parametrize("target", NVIDIA, ids=lambda target: target.name)
def test_peak_rates_are_dense_and_double_where_the_hardware_doubles(target):
    peak = target.peak
    if "tf32" in peak and "fp16" in peak and target.name not in {"rtx3090", "rtx4090", "rtx5090"}:
        assert peak["fp16"] == pytest.approx(2 * peak["tf32"], rel=0.02)
    if "int8" in peak and not target.name.startswith("rtx"):
        assert peak["int8"] == pytest.approx(2 * peak["fp16"], rel=0.02)
    if "fp4" in peak:
        assert peak["fp4"] == pytest.approx(2 * peak["int8"], rel=0.02)
    assert target.memory_gb > 0
    assert target.bandwidth_gb_s > 0


@pytest.mark.parametrize("target", NAMED_CPUS, ids=lambda target: target.name)
def test_a_cpus_numerics_and_rules_are_those_its_instruction_sets_give(target):
    assert target.numerics == cpu_numerics(target.isa)
    assert target.rules == cpu_rules(target.isa)


def test_rules_of_instruction_sets():
    assert cpu_rules(("avx2",)) == "x86-avx2"
    assert cpu_rules(("avx2", "avx_vnni")) == "x86-vnni-u8s8"
    assert cpu_rules(("asimd",)) == "arm"


def test_cpu_is_this_machine():
    here = load_target("cpu")
    assert here.here
    assert here.isa == machine.isa()
    assert usable_threads() >= 1
    assert {"fp32", "int8"} <= set(here.numerics)


def test_names_are_found_in_any_case_and_misspellings_get_the_nearest():
    assert load_target("A100").name == "a100"
    with pytest.raises(UsageError) as wrong:
        load_target("a1000")
    assert wrong.value.hint == "did you mean 'a100'?"


def test_an_nvidia_row_is_here_only_where_the_driver_shows_that_device():
    shown = {device.name for device in machine.nvidia_devices()}
    if not shown:
        assert not any(target.here for target in NVIDIA)


@pytest.mark.parametrize("target", NVIDIA, ids=lambda target: target.name)
def test_a_card_has_its_sms_and_sparse_rates_twice_the_dense_of_its_tensor_cores(target):
    assert target.sms > 0
    assert target.cache_mib > 0
    assert bool(target.sparse_peak) == (float(target.compute_capability) >= 8)
    for numerics, rate in target.sparse_peak.items():
        assert numerics != "fp32"
        assert rate == 2 * target.peak[numerics]


@pytest.mark.parametrize("target", [each for each in NVIDIA if each.mig], ids=lambda target: target.name)
def test_mig_profiles_fit_the_card(target):
    parts = [re.fullmatch(r"([1-7])g\.(\d+)gb", profile) for profile in target.mig]
    assert all(parts)
    assert parts[-1][1] == "7"
    assert all(int(part[2]) <= target.memory_gb for part in parts)
    assert float(target.compute_capability) in {8.0, 9.0, 10.0}


@pytest.mark.parametrize("target", NAMED_CPUS, ids=lambda target: target.name)
def test_a_named_cpu_says_how_many_cores_a_socket_has(target):
    assert (target.cores is None) == (target.name == "avx2")


def test_whether_a_target_that_an_artifact_names_is_here():
    mine = load_target("cpu")
    assert is_here(mine)
    assert not is_here(mine.model_copy(update={"title": "this machine: another CPU"})), "the same sets, another CPU"
    for row in (*NAMED_CPUS, *NVIDIA):
        assert is_here(row.model_copy(update={"here": True})) == row.here, "what was recorded elsewhere says nothing"
    of_a_file = mine.model_copy(update={"name": "my-server", "title": "my-server", "here": False})
    assert is_here(of_a_file)
    assert not is_here(of_a_file.model_copy(update={"isa": mine.isa[1:]}))


def test_a_card_of_a_file_is_here_where_one_of_its_compute_capability_is(monkeypatch):
    mine = load_target("a10").model_copy(update={"name": "my-card", "here": False})
    monkeypatch.setattr(machine, "nvidia_devices", lambda: (machine.Device("NVIDIA A10", 23028, "8.6"),))
    assert is_here(mine)
    assert not is_here(mine.model_copy(update={"compute_capability": "9.0"}))
