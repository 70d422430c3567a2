"""What others take of the machine is seen; what we use ourselves is not held against us."""

import os
import subprocess
import sys
import time

import pytest

from mlpack.measure.disturbance import Disturbance, Watch, notes

# Real clocks on a machine that may stall for seconds: what is claimed has to hold in one of four tries.
pytestmark = pytest.mark.flaky(reruns=3, reruns_delay=5)

BUSY = "import time; print(flush=True)\nwhile True: pass"
QUIET = {"disturbed": 0, "repeated": 0, "unsteady": 0, "drift": 0.0, "steal": 0.0, "others": 0.0, "crashed": {}}
QUIET |= {"clocks_moved": 0, "slowed": []}
linux = pytest.mark.skipif(sys.platform != "linux", reason="the counters are Linux's")


def spin(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


@linux
def test_another_process_is_noticed_and_our_own_work_is_not():
    other = subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None
        other.stdout.readline()
        watch = Watch()
        spin(0.5)
        crowded = watch.read()
    finally:
        other.kill()
        other.wait()
    assert crowded is not None
    assert crowded.noticed
    assert crowded.others > 0.5 / len(os.sched_getaffinity(0))


def stat(path, **ticks):
    names = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guest_nice")
    row = " ".join(str(ticks.get(name, 0)) for name in names)
    lines = [f"cpu{number} {row}" for number in os.sched_getaffinity(0)]
    path.write_text("\n".join(["cpu 1 2 3 4", *lines, "cpu100000 9 9 9 9 9 9 9 9", "intr 5"]))


@linux
def test_steal_and_others_are_read_from_the_cpus_that_we_may_use(tmp_path):
    file = tmp_path / "stat"
    stat(file, user=100, idle=100)
    watch = Watch(file)
    time.sleep(0.2)
    stat(file, user=100, idle=112, steal=8)
    found = watch.read()
    assert found is not None
    assert found.others == 0
    assert 0.2 < found.steal <= 0.41
    assert found.noticed


@linux
def test_a_tick_or_two_say_nothing(tmp_path):
    file = tmp_path / "stat"
    stat(file)
    watch = Watch(file)
    time.sleep(0.02)
    file.write_text(file.read_text().replace("cpu0 0", "cpu0 2"))
    assert watch.read() == Disturbance(0.0, 0.0)


def test_where_the_system_does_not_tell_nothing_is_claimed(tmp_path):
    assert Watch(tmp_path / "missing").read() is None


def test_notes_name_what_happened_and_are_silent_when_nothing_did():
    assert notes(QUIET) == ()
    (line,) = notes({**QUIET, "disturbed": 2, "steal": 0.12, "others": 0.03, "repeated": 9})
    assert "2 timings were disturbed" in line
    assert "12%" in line
    assert "taken again" in notes({**QUIET, "repeated": 1})[0]
    assert "never steady" in notes({**QUIET, "unsteady": 1})[0]
    assert notes({**QUIET, "crashed": {"baseline": 1, "parent": 2}}) == (
        "baseline: a native library ended 1 launch, repeated since: a server may end so too",
        "parent: a native library ended 2 launches, repeated since: a server may end so too",
    )
    assert "20% slower" in notes({**QUIET, "drift": 0.2})[0]
    assert notes({**QUIET, "drift": 0.05}) == ()


def test_clocks_that_moved_and_what_slowed_a_card_are_said():
    assert notes({**QUIET, "clocks_moved": 2, "slowed": ["heat"]}) == (
        "the clock changed by more than 5% within 2 timings",
        "the card ran below its clocks: heat",
    )
