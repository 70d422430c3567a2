"""Threads, quotas, memory, rest and the timing lock, on this machine and on folders that look like others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest

from mlpack.core.threads import cgroup_quota, usable_threads
from mlpack.errors import MachineError
from mlpack.measure.machine import (
    machine_fingerprint,
    peak_rss_bytes,
    timing_lock,
    wait_until_idle,
)

# Real clocks on a machine that may stall for seconds: what is claimed has to hold in one of four tries.
pytestmark = pytest.mark.flaky(reruns=3, reruns_delay=5)


def groups(tmp_path, membership, files):
    for name, text in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "self").write_text(membership)
    return cgroup_quota(tmp_path / "self", tmp_path / "cgroup")


@pytest.mark.parametrize(
    ("membership", "files", "quota"),
    [
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "250000 100000\n"}, 2.5),
        ("0::/a/b\n", {"a/b/cpu.max": "150000 100000\n", "a/cpu.max": "400000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/docker/abc\n", {"cpu.max": "300000 100000\n"}, 3.0),
        ("0::/\n", {}, None),
        (
            "5:cpu,cpuacct:/docker/abc\n0::/\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "50000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
            0.5,
        ),
        ("1:cpu:/x\n", {"cpu/x/cpu.cfs_quota_us": "-1\n", "cpu/x/cpu.cfs_period_us": "100000\n"}, None),
        ("2:cpuset:/\n", {"cpuset/cpu.cfs_quota_us": "1\n", "cpuset/cpu.cfs_period_us": "1\n"}, None),
    ],
)
def test_quotas(tmp_path, membership, files, quota):
    assert groups(tmp_path, membership, files) == quota


def test_usable_threads_follow_the_affinity():
    assert 1 <= usable_threads() <= os.cpu_count()
    one = subprocess.run(
        [sys.executable, "-c", textwrap.dedent("""
            import os
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
            from mlpack.core.threads import usable_threads
            print(usable_threads())""")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert one.stdout.strip() == "1"


def test_fingerprint():
    fingerprint = machine_fingerprint()
    assert set(fingerprint) == {"cpu", "cores", "memory_gb", "os", "python"}
    assert json.loads(json.dumps(fingerprint)) == machine_fingerprint()
    assert fingerprint["memory_gb"] > 0


def test_peak_memory_is_our_own_and_not_the_parents():
    ballast = bytearray(200_000_000)
    ballast[::4096] = b"x" * len(ballast[::4096])
    assert peak_rss_bytes() > 200_000_000
    child = subprocess.run(
        [sys.executable, "-c", "from mlpack.measure.machine import peak_rss_bytes; print(peak_rss_bytes())"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert 5_000_000 < int(child.stdout) < 100_000_000


def test_wait_until_idle():
    spin = (
        "import select, sys, time\nprint('on', flush=True)\n"
        "while not select.select([sys.stdin], [], [], 0)[0]: pass\ntime.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", spin], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as busy:
        try:
            assert busy.stdout.readline() == "on\n"
            assert not wait_until_idle([busy.pid], limit_s=0.3)
            busy.stdin.write("enough\n")
            busy.stdin.flush()
            assert wait_until_idle([busy.pid], limit_s=60)
        finally:
            busy.kill()


def test_timing_lock_keeps_others_out(tmp_path):
    path = tmp_path / "deep" / "timing.lock"
    attempt = textwrap.dedent(f"""
        from pathlib import Path
        from mlpack.errors import MachineError
        from mlpack.measure.machine import timing_lock
        try:
            with timing_lock(Path({str(path)!r}), limit_s=0.2):
                print("mine")
        except MachineError as error:
            print(error.message, "|", error.hint)
    """)

    def other():
        done = subprocess.run([sys.executable, "-c", attempt], capture_output=True, text=True, check=True)
        return done.stdout

    with timing_lock(path), timing_lock(path):
        assert "another mlpack is timing" in other()
    assert other() == "mine\n"


def test_timing_lock_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="cannot lock"), timing_lock(tmp_path / "file" / "lock"):
        pass
