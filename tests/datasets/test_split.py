"""The three-way split: by content, seeded, disjoint, complete; and overlap is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlpack.core.dataset import PARTS, DataRef
from mlpack.core.model import TensorSpec
from mlpack.datasets import open_data
from mlpack.datasets.part import part_of
from mlpack.datasets.ref import make_ref, open_part
from mlpack.datasets.split import Split, split
from mlpack.errors import DataError


def of(tmp_path, name="d", **arrays):
    np.savez(tmp_path / f"{name}.npz", **arrays)
    return open_data(str(tmp_path / f"{name}.npz"))


def rows(n, start=0):
    return np.arange(start, start + n, dtype=np.float32)[:, None].repeat(3, 1)


@settings(max_examples=40)
@given(data=st.data(), n=st.integers(20, 120), seed=st.integers(0, 5), clustered=st.booleans())
def test_disjoint_complete_and_together(data, n, seed, clustered, tmp_path):
    values = np.array(data.draw(st.lists(st.integers(0, 60), min_size=n, max_size=n)), np.float32)
    arrays = {"x": values[:, None], "labels": np.arange(n)}
    if clustered:
        arrays["cluster"] = np.array(data.draw(st.lists(st.integers(0, 40), min_size=n, max_size=n)))
    try:
        made = split(of(tmp_path, **arrays), seed)
    except DataError:
        # One value or cluster can hold more rows than a whole part: that is refused, and only that.
        largest = max(np.unique(each, return_counts=True)[1].max() for each in (values, arrays.get("cluster", values)))
        assert clustered or largest > 1
        return
    sides = {part: set(made.rows(part).tolist()) for part in PARTS}
    assert sorted(row for side in sides.values() for row in side) == list(range(n))
    assert len(sides["calibration"]) <= n // 5
    for keys in (values.tolist(), arrays.get("cluster", np.arange(n)).tolist()):
        for key in set(keys):
            same = {row for row in range(n) if keys[row] == key}
            assert sum(bool(same & side) for side in sides.values()) == 1


def test_quotas_and_seed(tmp_path):
    small = split(of(tmp_path, x=rows(100)), 0)
    assert [len(small.rows(part)) for part in PARTS] == [20, 20, 60]
    data = of(tmp_path, x=rows(10_000))
    large = split(data, 0)
    assert [len(large.rows(part)) for part in PARTS] == [512, 1000, 8488]
    again, other = split(data, 0), split(data, 1)
    for part in PARTS:
        np.testing.assert_array_equal(large.rows(part), again.rows(part))
    assert len(np.intersect1d(large.calibration, other.calibration)) < 100


def test_a_sample_keeps_its_side_when_the_file_is_shuffled(tmp_path):
    x = rows(200)
    order = np.random.default_rng(3).permutation(200)
    one, other = (
        split(of(tmp_path, x=x), 0),
        split(of(tmp_path, "e", other_name=x[order].astype(np.float64)), 0),
    )
    for part in PARTS:
        assert sorted(order[other.rows(part)]) == one.rows(part).tolist()


def test_too_few(tmp_path):
    with pytest.raises(DataError, match="19 samples"):
        split(of(tmp_path, x=rows(19)), 0)
    with pytest.raises(DataError, match="cluster"):
        split(of(tmp_path, x=rows(40), cluster=np.zeros(40)), 0)


def test_own_calibration_data_and_overlap(tmp_path):
    data = of(tmp_path, x=rows(100))
    made = split(data, 0, of(tmp_path, "c", x=rows(30, start=1000)))
    assert made.own_calibration
    assert [len(made.rows(part)) for part in PARTS] == [30, 20, 80]
    with pytest.raises(DataError) as caught:
        split(data, 0, of(tmp_path, "c", y=rows(10, start=97).astype(np.float64)))
    assert "3 of 10 rows" in caught.value.message
    assert "rows 0, 1, 2" in caught.value.message


def test_saved_and_opened_again_in_parts(tmp_path):
    data = of(tmp_path, x=rows(100), labels=np.arange(100))
    calibration = of(tmp_path, "c", x=rows(30, start=1000))
    made = split(data, 4, calibration)
    made.save(tmp_path / "s" / "split.npz")
    assert [file.name for file in (tmp_path / "s").iterdir()] == ["split.npz"]
    loaded = Split.load(tmp_path / "s" / "split.npz")
    assert (loaded.seed, loaded.own_calibration) == (4, True)
    ref = make_ref(str(tmp_path / "d.npz"), data, tmp_path / "s" / "split.npz", str(tmp_path / "c.npz"), calibration)
    ref = DataRef.model_validate_json(ref.model_dump_json())
    wanted = (TensorSpec(name="pixels", dtype="float64", dims=("batch", 3)),)
    confirming = open_part(ref, "confirming", wanted)
    assert len(confirming) == 80
    assert confirming.inputs == wanted
    got = np.concatenate([batch.labels for batch in confirming.batches(7)])
    np.testing.assert_array_equal(got, made.confirming)
    assert len(open_part(ref, "calibration")) == 30
    assert next(iter(open_part(ref, "calibration").batches(1))).inputs["x"][0, 0] == 1000


def test_fingerprints_of_parts(tmp_path):
    data = of(tmp_path, x=rows(100))
    one, same, other = (part_of(data, np.array(r)).fingerprint for r in ([1, 2], [2, 1], [1, 3]))
    assert one == same
    assert len({one, other, data.fingerprint}) == 3


def test_random_calibration_beside_real_data(tmp_path):
    data = of(tmp_path, x=rows(100))
    split(data, 0).save(tmp_path / "split.npz")
    ref = make_ref(str(tmp_path / "d.npz"), data, tmp_path / "split.npz", "random:8")
    assert len(open_part(ref, "calibration", data.inputs)) == 8
