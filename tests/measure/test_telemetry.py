"""Sensors: RAPL counters that wrap around, machines without any, and a card where there is one."""

from __future__ import annotations

import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpack.measure.telemetry import Gpu, Reading, Sensors, between

JOULES = st.floats(0, 260_000)


@pytest.fixture
def zones(tmp_path):
    """A powercap folder as the kernel lays it out: a package, a part of it, and a zone of something else."""
    for name, said in {"intel-rapl:0": "package-0", "intel-rapl:0:0": "core", "intel-rapl:1": "psys"}.items():
        zone = tmp_path / name
        zone.mkdir()
        (zone / "name").write_text(said + "\n")
        (zone / "energy_uj").write_text("5000000\n")
        (zone / "max_energy_range_uj").write_text("262143328850\n")
    return tmp_path


def test_only_whole_packages_are_counted(zones):
    sensors = Sensors("cpu", zones)
    before = sensors.read()
    for name in ("intel-rapl:0", "intel-rapl:0:0", "intel-rapl:1"):
        (zones / name / "energy_uj").write_text("7500000")
    used = between(before, sensors.read())
    assert used.joules == pytest.approx(2.5)
    assert used.watts > 0


def test_a_counter_that_only_root_may_read_is_no_sensor(zones):
    (zones / "intel-rapl:0" / "energy_uj").unlink()
    sensors = Sensors("cpu", zones)
    assert between(sensors.read(), sensors.read()).joules is None


def test_a_machine_without_sensors_has_none(tmp_path):
    sensors = Sensors("cpu", tmp_path / "nothing")
    used = between(sensors.read(), sensors.read())
    assert (used.joules, used.watts, used.celsius, used.slowed) == (None, None, None, ())


@given(start=JOULES, used=st.floats(0, 200_000))
def test_a_counter_may_wrap_around(start, used):
    most = 262_143.0
    before = Reading(0.0, None, {"package": (start % most, most)}, None)
    after = Reading(2.0, None, {"package": ((start + used) % most, most)}, None)
    assert between(before, after).joules == pytest.approx(used % most, abs=1e-3)


@pytest.mark.parametrize(("after", "moved"), [(2000.0, False), (2080.0, False), (2200.0, True), (1500.0, True)])
def test_clocks_that_move_are_seen(after, moved):
    assert between(Reading(0, 2000.0, {}, None), Reading(1, after, {}, None)).clocks_moved == moved


def card(**changes):
    told = {"sm_mhz": 1500.0, "celsius": 60.0, "watts": 250.0, "memory_bytes": 1, "utilization": 90.0, "joules": 100.0}
    return Gpu(**{**told, "slowed": (), **changes})


def test_a_card_counts_for_itself_and_says_what_slowed_it():
    before = Reading(0, 2000.0, {"package": (1.0, 9.0)}, card())
    used = between(before, Reading(2, 2000.0, {"package": (5.0, 9.0)}, card(joules=400.0, slowed=("heat",))))
    assert (used.joules, used.watts, used.slowed) == (300.0, 150.0, ("heat",))
    silent = between(Reading(0, None, {}, card(joules=None)), Reading(2, None, {}, card(joules=None)))
    assert (silent.joules, silent.watts) == (None, 250.0)


@pytest.mark.gpu
@pytest.mark.skipif(shutil.which("nvidia-smi") is None, reason="no NVIDIA driver here")
def test_a_real_card_tells_energy_clock_and_memory():
    sensors = Sensors("cuda")
    before = sensors.read()
    assert before.gpu is not None
    assert before.gpu.sm_mhz > 0
    assert 0 < before.gpu.celsius < 120
    assert before.gpu.memory_bytes > 0
    assert between(before, sensors.read()).joules >= 0
