"""How much memory a process may use where control groups, such as a container's, allow less than the machine has."""

import psutil
import pytest

from mlpack.core.memory import cgroup_memory, usable_memory_bytes


def write(file, text):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def limit(tmp_path):
    return cgroup_memory(tmp_path / "self", tmp_path / "cgroup")


def test_the_tightest_limit_around_the_process_counts(tmp_path):
    write(tmp_path / "self", "0::/pods/mine\n")
    write(tmp_path / "cgroup/pods/mine/memory.max", "max\n")
    assert limit(tmp_path) is None
    write(tmp_path / "cgroup/pods/memory.max", "3000000\n")
    write(tmp_path / "cgroup/memory.max", "5000000\n")
    assert limit(tmp_path) == 3_000_000
    write(tmp_path / "cgroup/pods/mine/memory.max", "2000000\n")
    assert limit(tmp_path) == 2_000_000


def test_the_first_version_of_control_groups(tmp_path):
    write(tmp_path / "self", "5:cpu,cpuacct:/other\n4:memory:/box\n")
    write(tmp_path / "cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    write(tmp_path / "cgroup/memory/box/memory.limit_in_bytes", "1000000\n")
    assert limit(tmp_path) == 1_000_000


def test_a_machine_without_control_groups(tmp_path):
    assert limit(tmp_path) is None


@pytest.mark.parametrize(("allowed", "usable"), [(1000, 1000), (None, psutil.virtual_memory().total)])
def test_it_is_never_more_than_the_machine_has(monkeypatch, allowed, usable):
    monkeypatch.setattr("mlpack.core.memory.cgroup_memory", lambda: allowed)
    assert usable_memory_bytes() == usable


def test_weights_stay_on_the_disk_where_the_group_has_too_little(tmp_path, monkeypatch):
    import numpy as np
    from safetensors.numpy import save_file

    from mlpack.sources.hf_folder import _stays_on_disk

    save_file({"w": np.zeros((100, 100), np.float32)}, tmp_path / "model.safetensors")
    found = []
    for allowed in (100_000, 10_000_000):
        monkeypatch.setattr("mlpack.core.memory.cgroup_memory", lambda allowed=allowed: allowed)
        found.append(_stays_on_disk([tmp_path / "model.safetensors"], "auto"))
    assert found == [True, False]
