"""`predict`: the model's own answers, whole files or none, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_artifacts import make

import mlpack
from mlpack.errors import DataError, MachineError, Tampered, UsageError

ROWS = 101


@pytest.fixture
def rows(place):
    array = np.random.default_rng(1).normal(size=(ROWS, 8)).astype(np.float32)
    np.savez(place / "rows.npz", features=array, labels=np.arange(ROWS) % 3)
    return array


def answers(folder, arrays):
    import onnxruntime as ort

    session = ort.InferenceSession(str(folder / "model" / "model.onnx"), providers=["CPUExecutionProvider"])
    return dict(zip(("logits", "score"), session.run(None, {"features": arrays}), strict=True))


@pytest.mark.parametrize("batch", [1, 7, 32, 500])
def test_every_output_of_every_row_in_order_whatever_the_batch(store, rows, batch):
    done = mlpack.predict("tiny-mlp", data="rows.npz", out="deep/er/y.npz", batch=batch)
    expected = answers(store / "tiny-mlp" / "1", rows)
    with np.load(done.path) as written:
        assert sorted(written.files) == ["logits", "score"]
        for name, array in expected.items():
            assert written[name].dtype == np.float32
            np.testing.assert_allclose(written[name], array, rtol=1e-5, atol=1e-6)
    assert done.samples == ROWS
    assert done.outputs == {
        "logits": {"dtype": "float32", "shape": [ROWS, 3]},
        "score": {"dtype": "float32", "shape": [ROWS]},
    }
    assert [each.name for each in done.path.parent.iterdir()] == ["y.npz"]


def test_a_static_batch_pads_the_last_one_and_cuts_it_again(store, rows):
    make(store / "other", batch=2)
    done = mlpack.predict(str(store / "other" / "tiny-mlp" / "1"), data="rows.npz", out="y.npz", batch=8)
    assert done.batch == 2
    with np.load(done.path) as written:
        np.testing.assert_allclose(
            written["logits"], answers(store / "tiny-mlp" / "1", rows)["logits"], rtol=1e-5, atol=1e-6
        )


def test_a_batch_dependent_model_runs_one_by_one_and_says_so(store, rows, heard):
    make(store / "other", accuracy__batch_dependent=True)
    ref = str(store / "other" / "tiny-mlp" / "1")
    assert mlpack.predict(ref, data="rows.npz", out="y.npz", reporter=heard).batch == 1
    assert any("batch mates" in line for line in heard.lines)
    assert mlpack.predict(ref, data="rows.npz", out="z.npz", batch=4).batch == 4


def test_a_file_that_is_there_is_replaced_only_with_force(store, rows, place):
    (place / "y.npz").write_bytes(b"precious")
    with pytest.raises(UsageError, match="is there already"):
        mlpack.predict("tiny-mlp", data="rows.npz", out="y.npz")
    assert (place / "y.npz").read_bytes() == b"precious"
    assert mlpack.predict("tiny-mlp", data="rows.npz", out="y.npz", force=True).samples == ROWS
    (place / "folder.npz").mkdir()
    for out in ("folder.npz", "y.txt", "y.npz/z.npz"):
        with pytest.raises(UsageError):
            mlpack.predict("tiny-mlp", data="rows.npz", out=out, force=True)


def test_bad_data_leaves_nothing_behind(store, place):
    bad = np.zeros((30, 8), np.float32)
    bad[17, 3] = np.nan
    np.savez(place / "nan.npz", features=bad)
    np.savez(place / "wide.npz", features=np.zeros((30, 9), np.float32))
    before = sorted(place.iterdir())
    for data, said in (("nan.npz", "row 17"), ("wide.npz", r"\[batch, 9\]"), ("none.npz", "no data at")):
        with pytest.raises(DataError, match=said):
            mlpack.predict("tiny-mlp", data=data, out="y.npz")
    assert sorted(place.iterdir()) == before


def test_answers_that_are_no_numbers_are_counted(store, place, heard):
    huge = np.zeros((30, 8), np.float32)
    huge[:4] = 3e38
    np.savez(place / "huge.npz", features=huge)
    done = mlpack.predict("tiny-mlp", data="huge.npz", out="y.npz", reporter=heard)
    assert done.nonfinite["logits"] == 4
    assert "4 of 30 samples" in heard.warnings[0]
    assert json.loads(json.dumps(done.document()))["nonfinite"]["logits"] == 4


def test_a_missing_model_file_is_told_before_anything_runs(store, rows):
    (store / "tiny-mlp" / "1" / "model" / "model.onnx.data").unlink()
    with pytest.raises(Tampered, match=r"model\.onnx\.data is missing"):
        mlpack.predict("tiny-mlp", data="rows.npz", out="y.npz")


def test_a_full_disk_is_an_error_of_the_machine(store, place):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    from mlpack.api.predict import _Growing
    from mlpack.core.filesystem import refused_by_machine

    growing = _Growing("y", place / "full.npy", np.zeros((1, 4), np.float32), 1)
    growing.close()
    with Path("/dev/full").open("wb", buffering=0) as full:
        growing._stream = full
        with pytest.raises(MachineError, match="disk is full"), refused_by_machine(place):
            growing.append(np.zeros((1, 4), np.float32), 1)


def test_memory_holds_a_batch_not_the_data(store, place):
    """256 MB of inputs and 128 MB of outputs, streamed: the child's peak stays far below their sum."""
    big = np.lib.format.open_memmap(place / "features.npy", mode="w+", dtype=np.float32, shape=(8_000_000, 8))
    del big
    folder = place / "data"
    folder.mkdir()
    (place / "features.npy").rename(folder / "features.npy")
    from mlpack.engine import process
    from mlpack.engine.job import with_path
    from mlpack.store.find import find

    (place / "work").mkdir()
    arguments = {
        "model": with_path(find(store, "tiny-mlp").model),
        "threads": 1,
        "data": str(folder),
        "batch": 50_000,
        "place": str(place / "work" / "outputs.npz"),
        "raw": None,
        "pipeline": None,
    }
    done = process.call("mlpack.api.predict:write_outputs", arguments, lambda *_: None)
    assert done.value["samples"] == 8_000_000
    assert done.peak_rss_bytes < 230e6
