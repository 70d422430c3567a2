"""`.npz` and folders of `.npy`: streamed, fingerprinted by content, refused with the array's name."""

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlpack.core.model import TensorSpec
from mlpack.datasets import open_data
from mlpack.errors import DataError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MLPACK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def arrays(n=30):
    generator = np.random.default_rng(0)
    return {
        "image": generator.standard_normal((n, 2, 3)).astype(np.float32),
        "ids": generator.integers(0, 9, (n, 4)),
        "labels": generator.integers(0, 3, n),
        "cluster": np.arange(n) // 2,
    }


def save(form, path, content):
    if form == "folder":
        path.mkdir()
        for name, array in content.items():
            np.save(path / f"{name}.npy", array)
    else:
        (np.savez if form == "stored" else np.savez_compressed)(path, **content)
    return str(path)


@pytest.mark.parametrize("form", ["stored", "packed", "folder"])
@pytest.mark.parametrize("size", [1, 7, 30, 100])
def test_every_row_comes_once_and_in_order(form, size, tmp_path):
    content = arrays()
    data = open_data(save(form, tmp_path / "d.npz", content))
    batches = list(data.batches(size))
    assert len(data) == 30
    assert data.labelled
    for name in ("image", "ids"):
        np.testing.assert_array_equal(np.concatenate([batch.inputs[name] for batch in batches]), content[name])
    np.testing.assert_array_equal(np.concatenate([batch.labels for batch in batches]), content["labels"])
    np.testing.assert_array_equal(np.concatenate([batch.cluster for batch in batches]), content["cluster"])
    np.testing.assert_array_equal(np.concatenate([batch.rows for batch in batches]), np.arange(30))
    assert {spec.name: str(spec) for spec in data.inputs} == {
        "image": "image=float32:batch,2,3",
        "ids": "ids=int64:batch,4",
    }
    some = list(data.batches_of(np.array([1, 5, 29]), 2))
    assert [len(batch) for batch in some] == [2, 1]
    np.testing.assert_array_equal(some[1].inputs["image"], content["image"][[29]])


@settings(max_examples=25)
@given(
    shape=st.lists(st.integers(1, 4), min_size=0, max_size=3),
    dtype=st.sampled_from(["<f4", ">f4", "<f8", "<i8", ">i2", "u1", "?", "<f2"]),
    order=st.sampled_from("CF"),
    packed=st.booleans(),
)
def test_any_layout_reads_as_numpy_reads_it(shape, dtype, order, packed, tmp_path):
    values = np.random.default_rng(1).integers(0, 2, (9, *shape))
    array = np.asarray(values, dtype=dtype, order=order)
    path = tmp_path / "any.npz"
    (np.savez_compressed if packed else np.savez)(path, x=array, y=array)
    batches = list(open_data(str(path)).batches(4))
    read = np.concatenate([batch.inputs["x"] for batch in batches])
    np.testing.assert_array_equal(read, array)
    assert read.dtype == array.dtype.newbyteorder("=")


def test_the_fingerprint_is_by_content(tmp_path):
    first = open_data(save("stored", tmp_path / "a.npz", arrays())).fingerprint
    (tmp_path / "a.npz").rename(tmp_path / "b.npz")
    assert open_data(str(tmp_path / "b.npz")).fingerprint == first
    changed = arrays()
    changed["labels"][3] += 1
    assert open_data(save("stored", tmp_path / "c.npz", changed)).fingerprint != first
    one = open_data(save("folder", tmp_path / "f", arrays())).fingerprint
    assert open_data(save("folder", tmp_path / "g", changed)).fingerprint != one


def test_packed_arrays_are_unpacked_once(tmp_path, cache):
    path = save("packed", tmp_path / "d.npz", arrays())
    data = open_data(path)
    unpacked = sorted(cache.rglob("*.npy"))
    assert len(unpacked) == 4
    assert not list(cache.rglob("*.tmp*"))
    before = [file.stat().st_mtime_ns for file in unpacked]
    again = open_data(path, fingerprint=data.fingerprint)
    assert [file.stat().st_mtime_ns for file in sorted(cache.rglob("*.npy"))] == before
    assert again.fingerprint == data.fingerprint


def refused(path, *words):
    with pytest.raises(DataError) as caught:
        open_data(str(path))
    assert caught.value.exit_code == 2
    assert caught.value.hint
    for word in words:
        assert word in caught.value.message
    return caught.value


def test_bad_files(tmp_path):
    refused(tmp_path / "nothing.npz", "no data")
    path = Path(save("stored", tmp_path / "data.npz", arrays()))
    assert str(path) in refused(tmp_path / "dta.npz").hint
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    refused(path, "too early")
    path.write_bytes(b"")
    refused(path, "empty")
    path.write_bytes(b"not a zip at all")
    refused(path, "not a zip")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no arrays")
    refused(path, "no arrays")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "no .npy")
    (tmp_path / "batches.py").write_text("def batches(): ...")
    refused(tmp_path / "batches.py", "which function")
    np.save(tmp_path / "x.npy", np.zeros(3))
    refused(tmp_path / "x.npy", "single array")


def test_damaged_content_of_a_packed_member(tmp_path):
    path = Path(save("packed", tmp_path / "d.npz", {"x": np.arange(5000.0)}))
    raw = bytearray(path.read_bytes())
    raw[200:400] = bytes(200)
    path.write_bytes(raw)
    refused(path, "damaged")


@pytest.mark.parametrize("form", ["stored", "packed", "folder"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image": np.zeros((29, 2), np.float32)}, ["image", "29", "30"]),
        ({"labels": np.zeros(31)}, ["labels", "31", "30"]),
        ({"image": np.full((30, 2), "text")}, ["image", "<U4"]),
        ({"image": np.zeros((30, 2), complex)}, ["image", "complex"]),
        ({"image": np.where(np.arange(60).reshape(30, 2) == 51, np.nan, 0.0)}, ["image", "NaN", "row 25"]),
        ({"image": np.where(np.arange(30) == 7, -np.inf, 0.0)}, ["image", "infinity", "row 7"]),
        ({"labels": np.where(np.arange(30) == 9, np.nan, 0.0)}, ["labels", "NaN", "row 9"]),
        ({"image": np.float32(3)}, ["image", "single number"]),
    ],
)
def test_bad_arrays(form, change, words, tmp_path):
    refused(save(form, tmp_path / "d.npz", {**arrays(), **change}), *words)


def test_objects_are_refused_and_not_unpickled(tmp_path):
    marker = tmp_path / "pwned"

    class Evil:
        def __reduce__(self):
            return Path(marker).touch, ()

    np.savez(tmp_path / "d.npz", x=np.array([Evil()] * 3, dtype=object))
    refused(tmp_path / "d.npz", "x", "Python objects")
    assert not marker.exists()


def test_no_samples_and_no_inputs(tmp_path):
    refused(save("stored", tmp_path / "a.npz", {"x": np.zeros((0, 3))}), "no samples")
    refused(save("stored", tmp_path / "b.npz", {"labels": np.zeros(3)}), "no input array")


def test_random_rows_are_seeded_and_plausible():
    specs = (
        TensorSpec(name="ids", dtype="int64", dims=("batch", "seq")),
        TensorSpec(name="mask", dtype="bool", dims=("batch", "seq")),
        TensorSpec(name="x", dtype="float32", dims=("batch", 3)),
    )
    data = open_data("random:10", specs, seed=1)
    (batch,) = data.batches(64)
    assert len(data) == len(batch) == 10
    assert set(np.unique(batch.inputs["ids"])) == {0, 1}
    assert batch.inputs["mask"].any(axis=1).all()
    assert batch.inputs["ids"].shape == batch.inputs["mask"].shape
    again = next(iter(open_data("random:10", specs, seed=1).batches(64)))
    np.testing.assert_array_equal(again.inputs["x"], batch.inputs["x"])
    other = open_data("random:10", specs, seed=2)
    assert other.fingerprint != data.fingerprint
    assert not np.array_equal(next(iter(other.batches(64))).inputs["x"], batch.inputs["x"])
    np.testing.assert_array_equal(next(iter(data.batches_of(np.array([4]), 1))).inputs["x"], batch.inputs["x"][[4]])
    for text in ("random:", "random:x", "random:0"):
        with pytest.raises(DataError, match="how many"):
            open_data(text, specs)
    with pytest.raises(DataError, match="inputs"):
        open_data("random:4")


GROWTH = """
import sys, numpy as np
from mlpack.datasets import open_data
from mlpack.measure.machine import peak_rss_bytes
def peak():
    return peak_rss_bytes() >> 20
np.zeros(1).dot(np.zeros(1))
before = peak()
data = open_data(sys.argv[1], fingerprint=sys.argv[2] or None)
total = 0
for at, batch in enumerate(data.batches(64)):
    total += len(batch)
    if sys.argv[2] and at == 5:
        break
rows = np.array([1, len(data) // 2, len(data) - 1])
picked = [batch.inputs["x"][:, 0].tolist() for batch in data.batches_of(rows, 2)]
print(peak() - before, total, picked)
"""


def growth(path, fingerprint=""):
    ran = subprocess.run(
        [sys.executable, "-c", GROWTH, str(path), fingerprint], capture_output=True, text=True, check=True
    )
    megabytes, total, picked = ran.stdout.split(" ", 2)
    return int(megabytes), int(total), picked.strip()


def sparse_npy(path, rows, columns):
    """A .npy of zeros of several GB that takes no room on the disk, but for its last row."""
    header = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, columns))
    header[-1] = 7
    header.flush()


def test_a_file_of_10_gb_is_not_loaded(tmp_path):
    sparse_npy(tmp_path / "x.npy", 2_500_000, 1000)
    assert (tmp_path / "x.npy").stat().st_size > 9_999_000_000
    assert (tmp_path / "x.npy").stat().st_blocks < 10_000
    megabytes, _, picked = growth(tmp_path, "known")
    assert picked == "[[0.0, 0.0], [7.0]]"
    assert megabytes < 300


def test_a_large_npz_is_not_loaded(tmp_path):
    """The array of a stored member, found at its offset. The zip is written by hand, sparsely."""
    sparse_npy(tmp_path / "x.npy", 500_000, 1000)
    size = (tmp_path / "x.npy").stat().st_size
    path = tmp_path / "d.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        info = zipfile.ZipInfo("x.npy")
        with archive.open(info, "w", force_zip64=True) as member:
            member.write((tmp_path / "x.npy").open("rb").read(4096))
    raw = path.read_bytes()
    local, directory = raw[: raw.index(b"PK\x01\x02")], raw[raw.index(b"PK\x01\x02") :]
    data_start = len(local) - 4096
    with path.open("r+b") as stream:
        stream.write(local)
        stream.seek(data_start + size)
        entry = bytearray(directory)
        entry[20:28] = (size).to_bytes(4, "little") * 2
        end = entry.index(b"PK\x05\x06")
        entry[end + 16 : end + 20] = (data_start + size).to_bytes(4, "little")
        stream.write(entry)
        stream.truncate()
    megabytes, _, picked = growth(path, "known")
    assert picked == "[[0.0, 0.0], [0.0]]"
    assert megabytes < 300


@pytest.mark.parametrize("form", ["stored", pytest.param("packed", marks=pytest.mark.slow)])
def test_hashing_and_checking_are_streamed(form, tmp_path):
    """300 MB, read whole by the fingerprint and by the search for NaN."""
    block = np.arange(75_000_000, dtype=np.float32).reshape(-1, 750)
    save(form, tmp_path / "d.npz", {"x": block})
    del block
    megabytes, total, picked = growth(tmp_path / "d.npz")
    assert total == 100_000
    assert picked == "[[750.0, 37500000.0], [74999248.0]]"
    assert megabytes < 150
