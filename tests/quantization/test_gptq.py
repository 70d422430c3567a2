"""GPTQ: answers are nearer than by rounding to the nearest, and memory does not grow with samples."""

import itertools

import numpy as np
import onnx
import pytest
from small_graphs import mlp, random

from mlpack.quantization import gptq
from mlpack.quantization.blocks import Form, dequantize_blocks, extremes, magnitudes, quantize_blocks
from mlpack.quantization.gptq import hessians, quantize_by_answers
from mlpack.quantization.half_quadratic import half_quadratic

FORMS = [Form(16), Form(32, symmetric=True), Form(64), Form(16, bits=8)]


def correlated(count, size, draw):
    """Inputs that have much in common, as those of a layer have."""
    shared = random(size // 4, size)
    return random(count, size // 4, seed=draw) @ shared + 0.1 * random(count, size, seed=draw + 1)


def lost(exact, kept, x, form):
    return float(np.square(x @ (dequantize_blocks(kept, len(exact), form) - exact)).sum())


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("act_order", [True, False])
@pytest.mark.parametrize("size", [64, 150, 300])
def test_answers_are_nearer_than_by_rounding_to_the_nearest(form, act_order, size):
    exact, x, fresh = random(size, 24, seed=7), correlated(2000, size, 3), correlated(500, size, 13)
    kept = quantize_by_answers(exact, x.T @ x, form, extremes, damping=0.01, act_order=act_order)
    nearest = quantize_blocks(exact, form)
    assert lost(exact, kept, fresh, form) < 0.7 * lost(exact, nearest, fresh, form)


@pytest.mark.parametrize("find", [extremes, half_quadratic, magnitudes])
def test_inputs_that_are_independent_leave_nothing_to_make_good(find):
    form = Form(16, symmetric=True)
    exact = random(48, 5)
    kept = quantize_by_answers(exact, np.eye(48, dtype=np.float32), form, find, damping=0.01, act_order=True)
    nearest = quantize_blocks(exact, form, find)
    assert np.array_equal(kept.packed, nearest.packed)
    assert np.array_equal(kept.scales, nearest.scales)


@pytest.mark.parametrize("act_order", [True, False])
def test_inputs_that_are_always_zero_or_all_the_same_are_no_trouble(act_order):
    form = Form(32)
    exact, x = random(40, 6), random(300, 40, seed=1)
    x[:, 3] = 0
    x[:, 8] = x[:, 7]
    kept = quantize_by_answers(exact, x.T @ x, form, extremes, damping=1e-9, act_order=act_order)
    assert np.isfinite(dequantize_blocks(kept, 40, form)).all()
    nothing = quantize_by_answers(
        exact, np.zeros((40, 40), np.float32), form, extremes, damping=0.01, act_order=act_order
    )
    assert np.isfinite(dequantize_blocks(nothing, 40, form)).all()


def test_hessians_add_up_over_batches_of_any_size(tmp_path):
    model = mlp(tmp_path)
    graph = onnx.load(model.entry_path)
    x = random(30, 8, seed=5)
    hidden = np.maximum(x @ onnx.numpy_helper.to_array(graph.graph.initializer[0]) + random(16, seed=1), 0)

    def batches(size):
        return lambda: ({"x": x[at : at + size]} for at in range(0, 30, size))

    for size in (1, 7, 30):
        (found,) = hessians(graph, {"x": 8, "r": 16}, batches(size), threads=1, cut=True)
        assert np.allclose(found["x"], x.T @ x, atol=1e-3)
        assert np.allclose(found["r"], hidden.T @ hidden, rtol=1e-3, atol=1e-3)


def test_hessians_that_do_not_fit_together_take_passes_of_their_own(tmp_path, monkeypatch):
    graph = onnx.load(mlp(tmp_path).entry_path)
    x, passes = random(8, 8, seed=5), itertools.count()

    def batches():
        next(passes)
        yield {"x": x}

    monkeypatch.setattr(gptq, "_HELD_BYTES", 16 * 16 * 4)
    found = list(hessians(graph, {"x": 8, "r": 16}, batches, threads=1, cut=True))
    assert [set(each) for each in found] == [{"x"}, {"r"}]
    assert next(passes) == 2
