"""Publishing: numbering, immutability, two at once, kill -9."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pydantic_core import PydanticSerializationError
from sample_artifact import make_artifact, make_draft

from mlpack.core.filesystem import abandoned
from mlpack.errors import MachineError, UsageError
from mlpack.store.publish import publish, same_as_latest
from mlpack.store.read import read, versions
from mlpack.store.remove import remove_version
from mlpack.store.verify import verify

PUBLISHER = [sys.executable, str(Path(__file__).parent / "publisher.py")]


def start(store, draft, times):
    child = subprocess.Popen(
        [*PUBLISHER, str(store), str(draft), str(times)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout.readline() == "ready\n"
    return child


def test_what_is_read_back_is_what_was_published(tmp_path):
    stored = publish(tmp_path / "store", make_draft(tmp_path / "draft"), make_artifact())
    again = read(stored.path)
    assert again == stored
    assert stored.path == tmp_path / "store" / "reviews" / "1"
    assert again.artifact.digest == again.artifact.identity()
    assert set(again.artifact.files) == {
        "model/model.onnx", "model/model.onnx.data", "golden/inputs.npz", "reports/check_accuracy.json",
    }  # fmt: skip
    assert verify(stored.path).files == 4


def test_published_files_are_read_only_and_linked_not_copied(tmp_path):
    draft = make_draft(tmp_path / "draft")
    stored = publish(tmp_path / "store", draft, make_artifact())
    for file in (path for path in stored.path.rglob("*") if path.is_file()):
        assert file.stat().st_mode & 0o777 == 0o444, file
    weights = stored.path / "model/model.onnx.data"
    assert weights.stat().st_ino == (draft / "model/model.onnx.data").stat().st_ino


def test_files_are_copied_where_they_cannot_be_linked(tmp_path):
    elsewhere = Path("/dev/shm")  # noqa: S108 - a file system of its own, where there is one
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system")
    store = elsewhere / f"mlpack-test-{os.getpid()}"
    try:
        stored = publish(store, make_draft(tmp_path / "draft"), make_artifact())
        assert verify(stored.path).files == 4
    finally:
        subprocess.run(["rm", "-rf", str(store)], check=True)


def test_versions_count_up_and_removed_numbers_never_come_back(tmp_path):
    store, draft = tmp_path / "store", make_draft(tmp_path / "draft")
    first, second, third = (publish(store, draft, make_artifact()) for _ in range(3))
    assert [each.artifact.version for each in (first, second, third)] == [1, 2, 3]
    remove_version(third)
    assert versions(store / "reviews") == [1, 2]
    assert publish(store, draft, make_artifact()).artifact.version == 4
    remove_version(first)
    assert publish(store, draft, make_artifact()).artifact.version == 5
    for version in versions(store / "reviews"):
        remove_version(read(store / "reviews" / str(version)))
    assert publish(store, draft, make_artifact()).artifact.version == 6


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ({}, True),
        ({"libraries": {"onnxruntime": "9"}}, True),
        ({"keys": ("k1", "k3")}, False),
        ({"limit": "2%"}, False),
        ({"verdict": "likely"}, False),
    ],
)
def test_an_unchanged_rerun_is_recognised_by_keys_limit_and_verdict(tmp_path, other, same):
    store = tmp_path / "store"
    assert same_as_latest(store, make_artifact()) is None
    stored = publish(store, make_draft(tmp_path / "draft"), make_artifact())
    assert same_as_latest(store, make_artifact(**other)) == (stored if same else None)


def test_two_processes_publishing_at_once_get_different_versions(tmp_path):
    store, times = tmp_path / "store", 8
    children = [start(store, tmp_path / f"draft{index}", times) for index in range(2)]
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    told = [int(line) for child in children for line in child.communicate(timeout=300)[0].split()]
    assert all(child.returncode == 0 for child in children)
    assert sorted(told) == list(range(1, 2 * times + 1))
    for version in versions(store / "reviews"):
        verify(store / "reviews" / str(version))


def test_kill_9_while_publishing_leaves_only_whole_versions_and_sweepable_leftovers(tmp_path):
    store, home = tmp_path / "store", tmp_path / "store" / "reviews"
    luck = random.Random(7)
    for attempt in range(3):
        child = start(store, tmp_path / f"draft{attempt}", 10_000)
        child.stdin.write("go\n")
        child.stdin.flush()
        time.sleep(0.05 + luck.random() * 0.1)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        child.stdin.close()
        for version in versions(home):
            verify(home / str(version))
    last = versions(home)[-1] if versions(home) else 0
    stored = publish(store, make_draft(tmp_path / "draft"), make_artifact())
    assert stored.artifact.version == last + 1
    assert abandoned(home) == []
    assert not [entry for entry in home.iterdir() if ".tmp-" in entry.name]


def test_a_temporary_of_a_living_process_is_left_alone(tmp_path):
    home = tmp_path / "store" / "reviews"
    living = home / f".version.tmp-{os.getpid()}-0badcafe"
    living.mkdir(parents=True)
    publish(tmp_path / "store", make_draft(tmp_path / "draft"), make_artifact())
    assert living.is_dir()


def test_a_failure_while_publishing_leaves_nothing(tmp_path):
    unwritable = make_artifact().model_copy(update={"baseline": {"size_bytes": object()}})
    with pytest.raises(PydanticSerializationError):
        publish(tmp_path / "store", make_draft(tmp_path / "draft"), unwritable)
    assert list((tmp_path / "store" / "reviews").iterdir()) == []


def test_only_plain_files_are_published(tmp_path):
    draft = make_draft(tmp_path / "draft")
    os.mkfifo(draft / "pipe")  # neither a file to link nor a reason to hang
    stored = publish(tmp_path / "store", draft, make_artifact())
    assert len(stored.artifact.files) == 4


@pytest.mark.parametrize("name", ["Reviews", "", "-x", "a/b", "../x", "a b", ".hidden", "ä"])
def test_names_that_cannot_be_folders_or_references_are_refused_with_a_good_one(tmp_path, name):
    with pytest.raises(UsageError) as refused:
        publish(tmp_path / "store", make_draft(tmp_path / "draft"), make_artifact(name=name))
    assert refused.value.hint.startswith("--name ")
    assert not (tmp_path / "store").exists()


def test_a_store_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "store").write_text("")
    with pytest.raises(UsageError, match="is no folder"):
        publish(tmp_path / "store", make_draft(tmp_path / "draft"), make_artifact())


def test_a_place_that_cannot_be_written_is_the_machines_refusal_and_names_the_path(tmp_path):
    place = Path("/sys/mlpack-store")
    with pytest.raises(MachineError, match="/sys/mlpack-store") as refused:
        publish(place, make_draft(tmp_path / "draft"), make_artifact())
    assert refused.value.exit_code == 3
    assert "MLPACK_STORE" in refused.value.hint
