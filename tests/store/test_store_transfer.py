"""An artifact as one tar and back: the same digest, checked, and never outside of the store."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_artifact import make_artifact, make_draft

from mlpack.errors import MlpackError, Tampered, UsageError
from mlpack.store.publish import publish
from mlpack.store.transfer import pack, unpack
from mlpack.store.verify import verify


@pytest.fixture
def stored(tmp_path):
    return publish(tmp_path / "here", make_draft(tmp_path / "draft"), make_artifact())


@pytest.fixture
def packed(stored, tmp_path):
    pack(stored, tmp_path / "one.tar")
    return tmp_path / "one.tar"


def rewritten(packed, change):
    """The tar again, each member as `change(member, content)` gives it; None: left out."""
    again = packed.with_name("again.tar")
    with tarfile.open(packed) as old, tarfile.open(again, "w") as new:
        for each in old.getmembers():
            changed = change(each, old.extractfile(each).read())
            if changed is not None:
                member, content = changed
                member.size = len(content)
                new.addfile(member, io.BytesIO(content))
    return again


def left_in(store):
    return sorted(path.relative_to(store).as_posix() for path in store.rglob("*")) if store.exists() else []


def test_it_arrives_under_its_own_number_with_its_own_digest(stored, packed, tmp_path):
    done = unpack(packed, tmp_path / "there")
    assert (done.there, done.renumbered) == (False, None)
    assert done.stored.artifact == stored.artifact
    assert verify(done.stored.path).digest == stored.artifact.digest
    assert (tmp_path / "there" / "reviews" / "1" / "model" / "model.onnx").read_bytes() == b"graph"
    assert unpack(packed, tmp_path / "there").there


def test_equal_artifacts_give_equal_files(stored, packed, tmp_path):
    for file in stored.path.rglob("*"):
        os.utime(file, (1, 1))
    pack(stored, tmp_path / "two.tar")
    assert (tmp_path / "two.tar").read_bytes() == packed.read_bytes()


def test_where_its_number_is_taken_it_gets_the_next(stored, packed, tmp_path):
    other = publish(tmp_path / "there", make_draft(tmp_path / "d2", b"others"), make_artifact(limit="2%"))
    done = unpack(packed, tmp_path / "there")
    assert done.renumbered == 1
    assert done.stored.artifact.version == 2
    assert done.stored.artifact.model.digest == stored.artifact.model.digest
    verify(done.stored.path)
    verify(other.path)


def test_a_changed_artifact_is_not_packed(stored, tmp_path):
    file = stored.path / "model" / "model.onnx"
    file.chmod(0o644)
    file.write_bytes(b"other")
    with pytest.raises(Tampered, match=r"model\.onnx"):
        pack(stored, tmp_path / "one.tar")
    assert not (tmp_path / "one.tar").exists()


def renamed(to):
    def change(member, content):
        if member.name.endswith("model.onnx"):
            member.name = to
        return member, content

    return change


@pytest.mark.parametrize("name", ["../outside", "/outside", "reviews/1/../../outside", "reviews/1/a\\..\\b"])
def test_names_that_lead_elsewhere_are_refused(packed, tmp_path, name):
    with pytest.raises(Tampered, match="no plain file inside"):
        unpack(rewritten(packed, renamed(name)), tmp_path / "there")
    assert left_in(tmp_path / "there") == []
    assert not (tmp_path / "outside").exists()


def test_links_are_refused(packed, tmp_path):
    def link(member, content):
        if member.name.endswith("model.onnx"):
            member.type, member.linkname, content = tarfile.SYMTYPE, "/etc/passwd", b""
        return member, content

    with pytest.raises(Tampered, match="no plain file"):
        unpack(rewritten(packed, link), tmp_path / "there")


def test_changed_content_is_found_before_anybody_sees_it(packed, tmp_path):
    def other(member, content):
        return member, b"grape" if content == b"graph" else content

    with pytest.raises(Tampered, match=r"changed: model/model\.onnx"):
        unpack(rewritten(packed, other), tmp_path / "there")
    assert left_in(tmp_path / "there") == ["reviews"]


@pytest.mark.parametrize("kept", ["artifact.json", "model.onnx"])
def test_what_lacks_a_file_is_refused(packed, tmp_path, kept):
    def without(member, content):
        return None if member.name.endswith(kept) else (member, content)

    with pytest.raises(MlpackError):
        unpack(rewritten(packed, without), tmp_path / "there")
    assert left_in(tmp_path / "there") == ["reviews"]


def test_two_artifacts_in_one_tar_are_refused(packed, tmp_path):
    def moved(member, content):
        if member.name.endswith("model.onnx"):
            member.name = "other/1/model.onnx"
        return member, content

    with pytest.raises(UsageError, match="does not hold one artifact"):
        unpack(rewritten(packed, moved), tmp_path / "there")


@settings(max_examples=100)
@given(data=st.data())
def test_a_damaged_tar_is_an_error_or_the_same_artifact(packed, tmp_path, data):
    raw = bytearray(packed.read_bytes())
    cut = data.draw(st.integers(0, len(raw)))
    for at in data.draw(st.lists(st.integers(0, len(raw) - 1), max_size=4)):
        raw[at] ^= data.draw(st.integers(1, 255))
    damaged = tmp_path / "damaged.tar"
    damaged.write_bytes(raw[: data.draw(st.sampled_from([cut, len(raw)]))])
    store = Path(tempfile.mkdtemp(prefix="store-", dir=tmp_path))
    try:
        done = unpack(damaged, store)
    except MlpackError:
        assert not list(store.glob("*/[0-9]*"))
    else:
        verify(done.stored.path)
