"""Weights in blocks: what is packed is what ONNX Runtime's kernels and its own quantizer read and write."""

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, DefaultWeightOnlyQuantizer

from mlpack.quantization.blocks import (
    Form,
    dequantize_blocks,
    extremes,
    in_blocks,
    magnitudes,
    quantize_blocks,
    whole_numbers,
)
from mlpack.quantization.half_quadratic import half_quadratic

DOMAIN = "com.microsoft"
FORMS = st.builds(
    Form, block=st.sampled_from([16, 32, 64, 128]), symmetric=st.booleans(), bits=st.sampled_from([4, 8])
)  # fmt: skip
SHAPES = st.tuples(st.integers(1, 200), st.integers(1, 40))


def weight(shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def answered(node, weights, feeds, result, dtype=TensorProto.FLOAT):
    """What ONNX Runtime's kernel makes of one node."""
    kinds = {np.dtype("float32"): TensorProto.FLOAT, np.dtype("float16"): TensorProto.FLOAT16}
    kinds[np.dtype("int64")] = TensorProto.INT64
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info(name, kinds[each.dtype], each.shape) for name, each in feeds.items()],
        [helper.make_tensor_value_info("y", dtype, result)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, 1)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["y"], feeds)[0]


def named(packed):
    kept = {"b": packed.packed, "s": packed.scales}
    return kept if packed.zero_points is None else {**kept, "z": packed.zero_points}


def product(packed, x, shape, form, **told):
    told = {"K": shape[0], "N": shape[1], "bits": form.bits, "block_size": form.block, **told}
    kept = named(packed)
    node = helper.make_node("MatMulNBits", ["x", *kept], ["y"], domain=DOMAIN, **told)
    kind = TensorProto.FLOAT16 if x.dtype == np.float16 else TensorProto.FLOAT
    return answered(node, kept, {"x": x}, [len(x), shape[1]], kind)


@given(SHAPES, FORMS, st.integers(0, 5))
def test_the_kernel_multiplies_what_the_blocks_say(shape, form, seed):
    kept = quantize_blocks(weight(shape, seed), form)
    x = weight((3, shape[0]), seed + 1)
    expected = x @ dequantize_blocks(kept, shape[0], form)
    assert np.allclose(product(kept, x, shape, form), expected, atol=1e-4 * np.abs(x).max() * shape[0])


@given(SHAPES, FORMS)
def test_each_weight_is_within_half_a_step(shape, form):
    exact = weight(shape)
    kept = quantize_blocks(exact, form)
    step = np.abs(np.repeat(kept.scales, form.block, axis=1)[:, : shape[0]].T)
    off = np.abs(dequantize_blocks(kept, shape[0], form) - exact)
    # Where zero points are whole, or eight integers lie on one side and seven on the other, an end can be cut.
    assert (off <= step * (1 + 1e-4)).all()
    assert np.median(off / step) < 0.5


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("block", [16, 32, 128])
@pytest.mark.parametrize("shape", [(64, 8), (40, 5), (130, 3)])
def test_the_layout_is_that_of_onnx_runtimes_own_quantizer(shape, block, symmetric):
    exact = weight(shape)
    config = DefaultWeightOnlyQuantConfig(block_size=block, is_symmetric=symmetric)
    packed, scales, zeros = DefaultWeightOnlyQuantizer(config).qbits_block_quant(exact)
    form = Form(block, symmetric)
    kept = quantize_blocks(exact, form)
    assert kept.packed.shape == packed.shape
    assert kept.packed.dtype == packed.dtype
    assert kept.scales.shape == scales.reshape(len(packed), -1).shape
    theirs = type(kept)(packed, scales.reshape(kept.scales.shape), None if symmetric else zeros)
    assert symmetric or kept.zero_points.shape == zeros.shape
    assert np.allclose(np.abs(kept.scales), np.abs(theirs.scales), rtol=1e-5)
    one, two = (dequantize_blocks(each, shape[0], form) for each in (kept, theirs))
    assert np.mean(np.isclose(one, two, atol=1e-6)) > 0.99, "but for ties"


@given(st.integers(1, 70), st.integers(1, 60), FORMS)
def test_rows_are_looked_up_as_the_blocks_say(count, half, form):
    """A table [rows, K] is a matrix [N, K]: its blocks run along K."""
    width = 2 * half
    table = weight((count, width))
    kept = quantize_blocks(table.T, form)
    flat = kept.packed.reshape(count, -1)[:, : width * form.bits // 8]
    told = {"gather_axis": 0, "quantize_axis": 1, "block_size": form.block, "bits": form.bits}
    names = named(kept) | {"b": np.ascontiguousarray(flat)}
    node = helper.make_node("GatherBlockQuantized", ["b", "x", *list(names)[1:]], ["y"], domain=DOMAIN, **told)
    at = np.random.default_rng(1).integers(0, count, 5)
    found = answered(node, names, {"x": at}, [5, width])
    assert np.array_equal(found, dequantize_blocks(kept, width, form).T[at])


@pytest.mark.parametrize("form", [Form(32), Form(32, symmetric=True), Form(32, bits=8)], ids=str)
def test_weights_in_half_precision_have_scales_in_half_precision(form):
    exact = weight((96, 8), dtype=np.float16)
    kept = quantize_blocks(exact, form)
    assert kept.scales.dtype == np.float16
    x = weight((4, 96), 1, np.float16)
    expected = x.astype(np.float32) @ dequantize_blocks(kept, 96, form)
    found = product(kept, x, (96, 8), form)
    assert found.dtype == np.float16
    assert np.allclose(found, expected, atol=0.05)


@pytest.mark.parametrize("find", [extremes, half_quadratic, magnitudes])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("value", [0.0, 0.75, -3.0, 1e-15, 1e15])
def test_blocks_of_one_value_are_exact(value, symmetric, find):
    form = Form(16, symmetric)
    if find is magnitudes and not symmetric:
        pytest.skip("a grid without zero points")
    exact = np.full((40, 3), value, np.float32)
    exact[:, 1] = 0
    kept = quantize_blocks(exact, form, find)
    assert np.isfinite(kept.scales).all()
    assert kept.scales.all()
    assert np.allclose(dequantize_blocks(kept, 40, form), exact, rtol=1e-6)


@given(SHAPES, FORMS, st.floats(1e-6, 1e6))
def test_a_half_quadratic_grid_has_no_larger_error_than_the_extremes(shape, form, size):
    exact = weight(shape) * np.float32(size)
    exact[0] *= 20
    blocks = in_blocks(exact, form.block)
    one, two = extremes(blocks, form, exact.dtype), half_quadratic(blocks, form, exact.dtype)
    lost = [np.square(blocks - grid.floats(grid.integers(blocks))).sum(axis=-1) for grid in (one, two)]
    assert (lost[1] <= lost[0] * (1 + 1e-5)).all()
    assert np.array_equal(np.rint(two.zero), two.zero)
    assert two.zero.min() >= 0
    assert two.zero.max() <= form.most


@pytest.mark.parametrize("form", [Form(32), Form(32, symmetric=True), Form(128)], ids=str)
def test_a_half_quadratic_grid_loses_less_of_normal_weights(form):
    exact = weight((256, 64), 3)
    kept = [quantize_blocks(exact, form, find) for find in (extremes, half_quadratic)]
    nearest, fitted = (dequantize_blocks(each, 256, form) for each in kept)
    assert np.square(fitted - exact).sum() < 0.96 * np.square(nearest - exact).sum()


def test_scales_for_tensorrt_are_above_zero_and_its_integers_are_signed():
    exact = weight((64, 4))
    form = Form(64, symmetric=True)
    kept = quantize_blocks(exact, form, magnitudes)
    assert (kept.scales > 0).all()
    signed = whole_numbers(kept, 64, form).astype(int) - form.middle
    assert np.abs(signed).max() == 7
    assert np.allclose(signed * kept.scales, exact.T, atol=kept.scales.max() / 2)
