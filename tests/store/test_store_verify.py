"""Verification names what changed; removal and gc take only what nothing needs."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest
from sample_artifact import make_artifact, make_draft

from mlpack.core.artifact import digest_of
from mlpack.core.filesystem import refused_by_machine, write_atomic
from mlpack.errors import MachineError, Tampered, UsageError
from mlpack.store.publish import publish
from mlpack.store.remove import leftovers, remove_version
from mlpack.store.verify import verify


@pytest.fixture
def stored(tmp_path):
    return publish(tmp_path / "store", make_draft(tmp_path / "draft"), make_artifact())


def test_one_flipped_bit_is_found_and_its_file_named(stored):
    weights = stored.path / "model/model.onnx.data"
    weights.chmod(0o644)
    weights.write_bytes(bytes([weights.read_bytes()[0] ^ 1]) + weights.read_bytes()[1:])
    with pytest.raises(Tampered, match=r"changed: model/model\.onnx\.data"):
        verify(stored.path)


def test_missing_extra_and_linked_files_are_named(stored):
    (stored.path / "golden/inputs.npz").unlink()
    (stored.path / "model/extra.bin").write_bytes(b"")
    graph = stored.path / "model/model.onnx"
    elsewhere = stored.path.parent / "elsewhere"
    graph.rename(elsewhere)
    graph.symlink_to(elsewhere)
    with pytest.raises(Tampered) as found:
        verify(stored.path)
    for part in ("changed: model/model.onnx;", "missing: golden/inputs.npz;", "extra: model/extra.bin"):
        assert part in found.value.message
    assert found.value.exit_code == 5


def test_a_changed_record_is_found_though_all_files_are_whole(stored):
    file = stored.path / "artifact.json"
    file.chmod(0o644)
    file.write_text(file.read_text().replace('"drop": 0.002', '"drop": 0.001'))
    with pytest.raises(Tampered, match="digest"):
        verify(stored.path)


def test_a_record_of_an_earlier_mlpack_lacks_what_later_ones_know_and_is_sound(stored):
    file = stored.path / "artifact.json"
    content = json.loads(file.read_text())
    assert content.pop("lengths") == []
    content["digest"] = digest_of(content)
    file.chmod(0o644)
    file.write_text(json.dumps(content))
    assert verify(stored.path).digest == content["digest"]


def package(folder):
    folder.mkdir()
    (folder / "config.pbtxt").write_text("x")
    digest = hashlib.sha256(b"x").hexdigest()
    record = {"files": {"config.pbtxt": digest}, "artifact_digest": "2" * 64}
    (folder / "mlpack-package.json").write_text(json.dumps(record))
    return folder


def test_a_package_is_verified_by_its_own_record(tmp_path):
    folder = package(tmp_path / "package")
    assert verify(folder).kind == "package"
    (folder / "config.pbtxt").write_text("y")
    with pytest.raises(Tampered, match=r"changed: config\.pbtxt"):
        verify(folder)


@pytest.mark.parametrize("record", ["", "[]", "{}", '{"files": 3, "artifact_digest": "2"}'])
def test_a_damaged_package_record_is_tampering(tmp_path, record):
    folder = package(tmp_path / "package")
    (folder / "mlpack-package.json").write_text(record)
    with pytest.raises(Tampered, match="is damaged"):
        verify(folder)


def test_a_folder_that_is_neither_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="neither an artifact nor a package"):
        verify(tmp_path)


def test_a_copy_outside_the_store_can_be_verified_but_not_removed_or_tagged(stored, tmp_path):
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(stored.path), str(copy)], check=True)
    assert verify(copy).digest == stored.artifact.digest
    with pytest.raises(UsageError, match="lies in no store"):
        remove_version(stored.model_copy(update={"path": copy}))
    assert copy.is_dir()


def stage(cache, key, age_s=7200.0):
    folder = cache / "stages" / key[:2] / key
    (folder / "out").mkdir(parents=True)
    (folder / "out" / "model.onnx").write_bytes(b"12345")
    (folder / "stage.json").write_text("{}")
    stat = (folder / "stage.json").stat()
    os.utime(folder / "stage.json", (stat.st_atime - age_s, stat.st_mtime - age_s))
    return folder


def test_gc_finds_unreferenced_stages_and_temporaries_of_the_dead(stored, tmp_path):
    store, cache = tmp_path / "store", tmp_path / "cache"
    used, unused, young = stage(cache, "k1"), stage(cache, "zz"), stage(cache, "yy", age_s=0)
    child = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True, check=True)
    dead = int(child.stdout)
    half_version = store / "reviews" / f".version.tmp-{dead}-00ff"
    half_stage = cache / "stages" / "k1" / f".k1abc.tmp-{dead}-00ff"
    living = store / "reviews" / f".version.tmp-{os.getpid()}-00ff"
    for folder in (half_version, half_stage, living):
        folder.mkdir(parents=True)
    found = leftovers(store, cache, younger_than_s=3600)
    assert {each.path for each in found} == {str(unused), str(half_version), str(half_stage)}
    assert next(each for each in found if each.kind == "stage").size_bytes == 7
    assert used.is_dir()
    assert young.is_dir()


def test_gc_refuses_to_guess_what_a_damaged_artifact_refers_to(stored, tmp_path):
    stage(tmp_path / "cache", "k1")
    file = stored.path / "artifact.json"
    file.chmod(0o644)
    file.write_text("{")
    with pytest.raises(Tampered):
        leftovers(tmp_path / "store", tmp_path / "cache", younger_than_s=0)


def test_a_full_disk_is_the_machines_refusal(tmp_path):
    full = Path("/dev/full")
    with (
        pytest.raises(MachineError, match="the disk is full") as refused,
        refused_by_machine(tmp_path / "x"),
        full.open("wb", buffering=0) as file,
    ):
        file.write(b"x")
    assert str(tmp_path / "x") in refused.value.message
    assert "mlpack gc" in refused.value.hint


def test_other_errors_of_the_system_are_not_hidden(tmp_path):
    with pytest.raises(FileNotFoundError), refused_by_machine(tmp_path):
        (tmp_path / "missing").read_bytes()


def test_a_failed_atomic_write_keeps_the_old_content(tmp_path):
    file = tmp_path / "file"
    write_atomic(file, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomic(file, "\udc80")
    write_atomic(file, "new")
    assert file.read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
