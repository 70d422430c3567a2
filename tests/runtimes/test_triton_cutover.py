"""From one version to the next and back in a real Triton under load: no request fails."""

from __future__ import annotations

import time

import pytest
from raw_artifacts import TEXTS, make_raw
from tiny_artifacts import make, samples
from triton_load import LOOK_SECONDS, POLL, Load, look_again, triton

import mlpack

__all__ = ["triton"]
pytestmark = pytest.mark.slow
EXPLICIT = ("--model-control-mode=explicit", "--load-model=*")
MODES = {"poll": POLL, "explicit": EXPLICIT}


@pytest.mark.parametrize("mode", MODES)
def test_versions_change_under_load_without_a_failed_request(triton, place, mode):
    make(place / "artifacts")
    make(place / "artifacts", version=2)
    options = {"runtime": "triton", "into": place / "models"}
    mlpack.package_into("tiny-mlp@1", **options)
    row = {"name": "features", "datatype": "FP32", "shape": [1, 8], "data": samples("mlp")["features"][0].tolist()}
    with triton(place / "models", *MODES[mode]) as server, Load(server.urls["http"], "tiny-mlp", row) as load:

        def told(placed) -> None:
            if mode == "explicit":
                look_again(placed.next, server)

        load.wait_for("1")
        mlpack.package_into("tiny-mlp@2", **options)
        time.sleep(LOOK_SECONDS)
        assert set(load.versions) == {"1"}, "a copy is no cutover"
        told(mlpack.package_into("tiny-mlp@2", activate=True, **options))
        load.wait_for("2")
        told(mlpack.package_into("tiny-mlp@1", activate=True, **options))
        load.wait_for("1")
    assert load.failures == []


@pytest.mark.parametrize("mode", MODES)
def test_an_ensemble_changes_over_with_all_that_it_asks(triton, place, mode):
    """Raw samples through the ensemble and tensors to the model itself, forward and back: no request fails."""
    for version in (1, 2):
        make_raw(place / "artifacts", "reviews", version=version)
    options = {"runtime": "triton", "into": place / "models"}
    mlpack.package_into("tiny-reviews@1", **options)
    text = {"name": "text", "datatype": "BYTES", "shape": [1, 1], "data": TEXTS[:1]}
    tensors = [{"name": name, "datatype": "INT64", "shape": [1, 2], "data": [2, 3]} for name in ("input_ids", "mask")]
    with (
        triton(place / "models", *MODES[mode]) as server,
        Load(server.urls["http"], "tiny-reviews_raw", text) as raw,
        Load(server.urls["http"], "tiny-reviews", *tensors) as plain,
    ):
        for version, before in (("2", "1"), ("1", "2")):
            raw.wait_for(before)
            placed = mlpack.package_into(f"tiny-reviews@{version}", activate=True, **options)
            assert (placed.pending, placed.active) == (True, (1, 2))
            if mode == "explicit":
                look_again(placed.next, server)
            raw.wait_for(version)
            done = mlpack.package_into(f"tiny-reviews@{version}", activate=True, **options)
            assert (done.pending, done.active) == (False, (int(version),))
            if mode == "explicit":
                look_again(done.next, server)
            plain.wait_for(version)
    assert raw.failures == plain.failures == []
