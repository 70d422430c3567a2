"""What is taken of several candidates, for a machine that is not here, where nothing is timed and no timing decides."""

import numpy as np
import pytest

import mlpack
from mlpack.core.targets import load_target

TARGET = next(name for name in ("cascade-lake", "zen3") if not load_target(name).here)
CODE = """
import torch
from torch import nn

def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 256), nn.ReLU(), nn.Linear(256, 4))

def convolutions():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Unflatten(1, (1, 4, 4)), nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.Flatten(),
        nn.Linear(128, 4),
    )
"""


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """Optimizes one model, with a cache that all share and a store for each; gives the artifact."""
    import torch

    place = tmp_path_factory.mktemp("choosing")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(place)
        patched.setenv("MLPACK_CACHE", str(place / "cache"))
        (place / "net.py").write_text(CODE)
        spec = {}
        exec(CODE, spec)  # noqa: S102 - the model that this file wrote
        x = torch.from_numpy(np.random.default_rng(0).standard_normal((3000, 16)).astype(np.float32))
        with torch.inference_mode():
            labels = spec["model"]()(x).argmax(1).numpy()
        np.savez("data.npz", input=x.numpy(), labels=labels)

        def optimize(model="model", **wanted):
            store = tmp_path_factory.mktemp("store")
            told = {"model": f"net.py:{model}", "data": "data.npz", "max_drop": "5pt", "target": TARGET}
            return mlpack.optimize(**told, store=store, **wanted).stored.artifact

        yield optimize


def test_the_smallest_inside_the_limit_is_taken_where_that_is_asked_for(make):
    usual, small = make(), make(smallest=True)
    inside = [each for each in small.candidates if each.chosen or each.why.startswith(("larger:", "drops more"))]
    assert len({each.size_bytes for each in inside}) > 1
    (chosen,) = (each for each in small.candidates if each.chosen)
    assert chosen.size_bytes == min(each.size_bytes for each in inside)
    assert chosen.why == "the smallest inside the limit"
    assert chosen.size_bytes < usual.model.size_bytes
    (chosen,) = (each for each in usual.candidates if each.chosen)
    assert chosen.why == "drops least"
    assert not any(each.why.startswith("larger") for each in usual.candidates)


def test_what_was_promised_is_waited_for_when_the_time_is_up(make):
    everything = make(numerics="int8")
    first = make(numerics="int8", time_limit="0.001s")
    assert first.model.numerics == "int8"
    assert sum(each.numerics == "int8" and each.accuracy is not None for each in first.candidates) == 1
    assert len(first.candidates) < len(everything.candidates)


def test_time_that_is_up_does_not_take_what_is_hardly_int8_for_int8(make):
    """Dynamic int8 leaves convolutions as they are: it comes first, and is not what was promised."""
    first = make("convolutions", numerics="int8", time_limit="0.001s")
    assert first.model.numerics_share > 0.5
    assert first.model.quantization.method == "static"
