"""What a user is told about the data before a number rests on it."""

import numpy as np
import pytest

from mlpack.datasets import open_data
from mlpack.datasets.split import Split, split


@pytest.fixture
def told(tmp_path):
    def call(calibration=None, **arrays):
        np.savez(tmp_path / "data.npz", **arrays)
        own = None
        if calibration is not None:
            np.savez(tmp_path / "own.npz", **calibration)
            own = open_data(str(tmp_path / "own.npz"))
        made = split(open_data(str(tmp_path / "data.npz")), 0, own)
        made.save(tmp_path / "split.npz")
        assert Split.load(tmp_path / "split.npz").notes == made.notes
        return made.notes

    return call


def rows(count, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (count, 4)).astype(np.float32)


def test_good_data_has_no_notes(told):
    assert told(x=rows(400), labels=np.arange(400) % 3) == ()
    assert told(x=rows(400), labels=rows(400)[:, 0]) == ()
    assert told(x=rows(400)) == ()


def test_repeated_samples_and_contradicting_labels(told):
    x = np.concatenate([rows(200), rows(200)[:30]])
    labels = np.arange(230) % 2
    (only,) = told(x=x, labels=labels)
    assert only.startswith("30 of 230 samples repeat another one")
    labels[200:207] += 1
    assert told(x=x, labels=labels)[1].startswith("7 samples repeat another one with a different label")


def test_classes_out_of_balance(told):
    labels = np.zeros(400, dtype=np.int64)
    assert "every sample has the label 0" in told(x=rows(400), labels=labels)[0]
    labels[:20] = 1
    assert told(x=rows(400), labels=labels) == (
        "95% of the samples have the label 0: answering only that scores as much",
    )
    labels = np.arange(400) % 3
    labels[:2] = 7
    assert "fewer than 5 samples have the label 7" in told(x=rows(400), labels=labels)[0]


def test_an_input_that_never_varies(told):
    (note,) = told(x=rows(400), mask=np.ones((400, 3)), labels=np.arange(400) % 3)
    assert note.startswith("input 'mask' is 1 everywhere")


def test_columns_of_a_table_that_never_vary(told):
    table = rows(400)
    table[:, [1, 3]] = 0.5
    (note,) = told(x=table, labels=np.arange(400) % 3)
    assert note.startswith("2 of 4 columns of input 'x' never change (1, 3)")
    table[:, [1, 3]] = 1
    assert told(x=table, labels=np.arange(400) % 3) == (), "an intercept, or where a mask begins"
    images = np.repeat(rows(400)[:, :, None], 5, axis=2)
    images[:, 0] = 0
    assert told(x=images, labels=np.arange(400) % 3) == (), "corners of images are often black"
    flattened = np.hstack([rows(400), np.zeros((400, 60), np.float32)])
    assert told(x=flattened, labels=np.arange(400) % 3) == ()


def test_values_beyond_what_ranges_are_found_on(told):
    assert told(x=rows(400), calibration={"x": rows(300, seed=1) * 2}) == ()
    (note,) = told(x=rows(400), calibration={"x": rows(300, seed=1) / 2})
    assert "values of input 'x' outside of [-0.4" in note
