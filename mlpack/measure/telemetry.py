"""What the machine's own sensors say of a timing: energy, clocks, temperature, memory. Nothing where there are none."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

_POWERCAP = Path("/sys/class/powercap")
_CLOCKS_MOVED = 0.05


@dataclass(frozen=True)
class Gpu:
    """A card at one moment: MHz, °C, bytes, percent, and joules since its driver was loaded (None: not told)."""

    sm_mhz: float
    celsius: float
    watts: float | None
    memory_bytes: int
    utilization: float
    joules: float | None
    slowed: tuple[str, ...]


@dataclass(frozen=True)
class Reading:
    """All sensors at one moment. `cpu_joules` by RAPL zone, with what each wraps around at."""

    seconds: float
    cpu_mhz: float | None
    cpu_joules: dict[str, tuple[float, float]]
    gpu: Gpu | None


@dataclass(frozen=True)
class Telemetry:
    """What the sensors saw between two readings; None where there is no sensor.

    `joules` are of the device that computes: the card, else the CPU packages. `clock_mhz` is its clock before and
    after; `slowed` why a card ran below its clocks (power, heat).
    """

    joules: float | None
    watts: float | None
    clock_mhz: tuple[float, float] | None
    celsius: float | None
    memory_bytes: int | None
    utilization: float | None
    slowed: tuple[str, ...] = ()

    @property
    def clocks_moved(self) -> bool:
        """Whether the clock changed by more than 5%."""
        return self.clock_mhz is not None and abs(self.clock_mhz[1] / self.clock_mhz[0] - 1) > _CLOCKS_MOVED

    def document(self) -> dict[str, Any]:
        """As it travels between processes."""
        return {**asdict(self), "clocks_moved": self.clocks_moved}


class Sensors:
    """Reads the sensors of the device that a model runs on.

    Sources: powercap(5) of the kernel for Intel's and AMD's RAPL counters, which count microjoules and wrap around;
    NVML for NVIDIA cards, which counts millijoules since the driver was loaded (Volta and later).
    """

    def __init__(self, device: str, powercap: Path = _POWERCAP) -> None:
        """`device` is `cpu` or `cuda`."""
        self._zones = [] if device == "cuda" else _packages(powercap)
        self._card = _card() if device == "cuda" else None

    def read(self) -> Reading:
        """All of them now."""
        return Reading(
            seconds=time.perf_counter(),
            cpu_mhz=_cpu_mhz(),
            cpu_joules={zone.name: told for zone in self._zones if (told := _joules(zone)) is not None},
            gpu=None if self._card is None else _gpu(*self._card),
        )


def between(before: Reading, after: Reading) -> Telemetry:
    """What was used from one reading to the other."""
    seconds = after.seconds - before.seconds
    if before.gpu is not None and after.gpu is not None:
        one, two = before.gpu, after.gpu
        joules = None if one.joules is None or two.joules is None else two.joules - one.joules
        return Telemetry(
            joules=joules,
            watts=joules / seconds if joules is not None and seconds > 0 else two.watts,
            clock_mhz=(one.sm_mhz, two.sm_mhz),
            celsius=two.celsius,
            memory_bytes=two.memory_bytes,
            utilization=two.utilization,
            slowed=two.slowed,
        )
    used = [
        _used(before.cpu_joules[zone], told) for zone, told in after.cpu_joules.items() if zone in before.cpu_joules
    ]
    cpu_joules = sum(used) if used else None
    clock = None if before.cpu_mhz is None or after.cpu_mhz is None else (before.cpu_mhz, after.cpu_mhz)
    watts = cpu_joules / seconds if cpu_joules is not None and seconds > 0 else None
    return Telemetry(cpu_joules, watts, clock, celsius=None, memory_bytes=None, utilization=None)


def _used(before: tuple[float, float], after: tuple[float, float]) -> float:
    """Joules, of a counter that may have wrapped around once."""
    used = after[0] - before[0]
    return used if used >= 0 else used + after[1]


def _packages(powercap: Path) -> list[Path]:
    """The RAPL zones of whole CPU packages; what lies inside them would be counted twice."""
    found = []
    for zone in sorted(powercap.glob("*-rapl:*")) if powercap.is_dir() else []:
        with contextlib.suppress(OSError):
            if (zone / "name").read_text(encoding="ascii").startswith("package"):
                found.append(zone)
    return found


def _joules(zone: Path) -> tuple[float, float] | None:
    """The counter and where it wraps around; None where only root may read it."""
    try:
        energy, most = (
            int((zone / name).read_text(encoding="ascii")) / 1e6 for name in ("energy_uj", "max_energy_range_uj")
        )
    except (OSError, ValueError):
        return None
    return energy, most


def _cpu_mhz() -> float | None:
    """The mean clock of the CPUs that this process may use."""
    import psutil

    try:
        clocks: Sequence[Any] = psutil.cpu_freq(percpu=True)
    except (OSError, NotImplementedError):
        return None
    mine = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(len(clocks)))
    told = [clock.current for number, clock in enumerate(clocks) if number in mine and clock.current > 0]
    return sum(told) / len(told) if told else None


def _card() -> tuple[Any, Any] | None:
    """NVML and the card that CUDA counts as its first; None without the library, the driver or the card."""
    try:
        import pynvml
    except ImportError:
        return None
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    try:
        pynvml.nvmlInit()
        if visible.isdigit():
            return pynvml, pynvml.nvmlDeviceGetHandleByIndex(int(visible))
        return pynvml, pynvml.nvmlDeviceGetHandleByUUID(visible)
    except pynvml.NVMLError:
        return None


_SLOWED = {
    "nvmlClocksEventReasonSwPowerCap": "its power limit",
    "nvmlClocksEventReasonSwThermalSlowdown": "heat",
    "nvmlClocksThrottleReasonHwSlowdown": "a hardware slowdown",
    "nvmlClocksThrottleReasonHwThermalSlowdown": "heat (hardware)",
    "nvmlClocksThrottleReasonHwPowerBrakeSlowdown": "the power supply",
}


def _gpu(nvml: Any, card: Any) -> Gpu:
    def told(read: Any) -> Any:
        try:
            return read()
        except nvml.NVMLError:
            return None

    milliwatts = told(lambda: nvml.nvmlDeviceGetPowerUsage(card))
    millijoules = told(lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(card))
    reasons = told(lambda: nvml.nvmlDeviceGetCurrentClocksEventReasons(card)) or 0
    used = told(lambda: nvml.nvmlDeviceGetUtilizationRates(card))
    return Gpu(
        sm_mhz=float(nvml.nvmlDeviceGetClockInfo(card, nvml.NVML_CLOCK_SM)),
        celsius=float(nvml.nvmlDeviceGetTemperature(card, nvml.NVML_TEMPERATURE_GPU)),
        watts=None if milliwatts is None else milliwatts / 1000,
        memory_bytes=int(nvml.nvmlDeviceGetMemoryInfo(card).used),
        utilization=float(used.gpu) if used is not None else 0.0,
        joules=None if millijoules is None else millijoules / 1000,
        slowed=tuple(why for name, why in _SLOWED.items() if reasons & getattr(nvml, name, 0)),
    )
