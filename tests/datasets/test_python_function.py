"""`file.py:function`: called anew for each pass, rebatched, and held to giving the same rows each time."""

import numpy as np
import pytest

from mlpack.datasets import open_data
from mlpack.datasets.part import part_of
from mlpack.errors import DataError


def write(tmp_path, body, name="data.py"):
    path = tmp_path / name
    path.write_text("import numpy as np\n" + body)
    return f"{path}:batches"


GOOD = """
from sizes import SIZES
def batches():
    start = 0
    for size in SIZES:
        rows = np.arange(start, start + size)
        yield {"x": np.stack([rows, -rows], 1).astype("float32")}, rows % 3
        start += size
"""


@pytest.fixture
def good(tmp_path):
    (tmp_path / "sizes.py").write_text("SIZES = [5, 1, 9, 15]\n")
    return write(tmp_path, GOOD)


@pytest.mark.parametrize("size", [1, 4, 30, 64])
def test_rebatched(good, size):
    data = open_data(good)
    assert len(data) == 30
    assert data.labelled
    for _ in range(2):
        batches = list(data.batches(size))
        assert {len(batch) for batch in batches[:-1]} <= {size}
        x = np.concatenate([batch.inputs["x"] for batch in batches])
        np.testing.assert_array_equal(x[:, 0], np.arange(30))
        np.testing.assert_array_equal(np.concatenate([batch.labels for batch in batches]), np.arange(30) % 3)


def test_parts_are_filtered(good):
    part = part_of(open_data(good), np.array([29, 0, 7]))
    batches = list(part.batches(2))
    assert [batch.rows.tolist() for batch in batches] == [[0, 7], [29]]
    assert batches[1].inputs["x"].tolist() == [[29.0, -29.0]]


def test_the_fingerprint_follows_code_and_rows(good, tmp_path):
    first = open_data(good).fingerprint
    assert open_data(good, fingerprint=first).fingerprint == first
    (tmp_path / "sizes.py").write_text("SIZES = [5, 1, 9, 15]  # \n")
    assert open_data(good).fingerprint == first
    write(tmp_path, GOOD + "# edited\n")
    assert open_data(good).fingerprint != first
    with pytest.raises(DataError, match="other rows"):
        open_data(good, fingerprint=first)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("def batches():\n    yield {'x': np.ones((2, 3))}, None\n    raise ValueError('disk gone')\n",
         ["ValueError: disk gone", "line 4", "data.py"]),
        ("def batches():\n    return 1 / 0\n", ["ZeroDivisionError", "line 3"]),
        ("def batches():\n    return 5\n", ["TypeError", "int"]),
        ("def batches():\n    return []\n", ["no batches"]),
        ("def batches():\n    yield np.ones(3)\n", ["ndarray", "(inputs, labels)"]),
        ("def batches():\n    yield {'x': np.ones(3)}, np.ones(2)\n", ["'x' has 3", "'labels' has 2"]),
        ("def batches():\n    yield {'x': np.array(['a'])}, None\n", ["'x'", "<U1"]),
        ("def batches():\n    yield {'x': np.array([1.0, np.nan])}, None\n", ["NaN", "row 1"]),
        ("def batches():\n    yield {'x': np.ones((1, 3))}, None\n    yield {'x': np.ones((1, 4))}, None\n",
         ["x=float64:batch,4", "x=float64:batch,3"]),
        ("def batches():\n    yield {'x': np.ones(1)}, np.ones(1)\n    yield {'x': np.ones(1)}, None\n",
         ["some batches only"]),
        ("def batch():\n    pass\n", ["no name 'batches'"]),
    ],
)  # fmt: skip
def test_refusals(tmp_path, body, words):
    with pytest.raises(DataError) as caught:
        open_data(write(tmp_path, body))
    assert caught.value.hint
    for word in words:
        assert word in caught.value.message
    assert "python_function.py" not in caught.value.message


def test_two_passes_that_differ(tmp_path):
    data = open_data(write(tmp_path, "def batches():\n    yield {'x': np.random.rand(30, 2)}, None\n"))
    with pytest.raises(DataError, match="other rows"):
        list(data.batches(8))


def test_a_missing_file_and_name(tmp_path):
    with pytest.raises(DataError, match="no file"):
        open_data(f"{tmp_path}/none.py:batches")
    reference = write(tmp_path, "def batches():\n    pass\n")
    with pytest.raises(DataError) as caught:
        open_data(reference.replace(":batches", ":batchs"))
    assert caught.value.hint.endswith(":batches?")
