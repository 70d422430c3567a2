"""Embedding tables are looked up as int8, and what has another reader keeps its floats."""

import numpy as np
import onnx
import onnxruntime as ort
import openvino as ov
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from mlpack.quantization.lookups import quantize_lookups

WORDS, WIDTH = 300, 8


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def write(folder, nodes, weights, outputs=("y",)):
    """A graph of `ids` int64 [n, 5]."""
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", 5])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["a", "b", "c"]) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    path = folder / "model.onnx"
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def look_up(table="table", result="x", name="words/Gather", axis=0):
    return helper.make_node("Gather", [table, "ids"], [result], name=name, axis=axis)


def product(*, table="x", result="y"):
    return helper.make_node("MatMul", [table, "w"], [result], name="head/MatMul")


def answers(path, ids):
    return ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"ids": ids})


def tables_of(path):
    return {each.name: each.data_type for each in onnx.load(path).graph.initializer if each.dims == [WORDS, WIDTH]}


IDS = np.random.default_rng(1).integers(0, WORDS, (7, 5))


def test_rows_are_looked_up_as_integers_and_become_floats_behind_it(tmp_path):
    table = drawn(WORDS, WIDTH) * np.geomspace(0.01, 100, WIDTH, dtype=np.float32)
    table[:, 3] = 0
    path = write(tmp_path, [look_up(), product()], {"table": table, "w": drawn(WIDTH, 3, seed=2)}, ("x", "y"))
    before, size = answers(path, IDS), path.stat().st_size
    assert quantize_lookups(path, ()) == ["words/Gather"]
    onnx.checker.check_model(onnx.load(path), full_check=True)
    assert set(tables_of(path).values()) == {TensorProto.INT8}
    assert path.stat().st_size < size - 2.9 * WORDS * WIDTH
    after = answers(path, IDS)
    # Half a step of each column, whatever the others' sizes are.
    step = np.abs(table).max(axis=0) / 127
    assert (np.abs(after[0] - before[0]) <= 0.501 * step).all()
    compiled = ov.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for mine, theirs in zip(after, compiled({"ids": IDS}).values(), strict=True):
        np.testing.assert_allclose(theirs, mine, rtol=1e-4, atol=1e-4)


def test_a_table_of_several_look_ups_is_kept_once(tmp_path):
    nodes = [
        look_up(),
        look_up(result="z", name="again/Gather"),
        helper.make_node("Add", ["x", "z"], ["s"]),
        product(table="s"),
    ]
    path = write(tmp_path, nodes, {"table": drawn(WORDS, WIDTH), "w": drawn(WIDTH, 3, seed=2)})
    (before,) = answers(path, IDS)
    assert quantize_lookups(path, ()) == ["words/Gather", "again/Gather"]
    assert list(tables_of(path).values()) == [TensorProto.INT8]
    (after,) = answers(path, IDS)
    assert np.linalg.norm(after - before) < 0.02 * np.linalg.norm(before)


def test_a_table_that_may_be_replaced_by_an_input_is_one_no_more(tmp_path):
    path = write(tmp_path, [look_up(), product()], {"table": drawn(WORDS, WIDTH), "w": drawn(WIDTH, 3, seed=2)})
    proto = onnx.load(path)
    proto.graph.input.append(helper.make_tensor_value_info("table", TensorProto.FLOAT, [WORDS, WIDTH]))
    onnx.save(proto, path)
    (before,) = answers(path, IDS)
    assert quantize_lookups(path, ()) == ["words/Gather"]
    (after,) = answers(path, IDS)
    assert np.linalg.norm(after - before) < 0.02 * np.linalg.norm(before)


def test_names_that_are_taken_and_nodes_without_any_do_no_harm(tmp_path):
    nodes = [
        look_up(name=""),
        look_up(table="table_quantized", result="z", name=""),
        helper.make_node("Add", ["x", "z"], ["y"]),
    ]
    weights = {"table": drawn(WORDS, WIDTH), "table_quantized": drawn(WORDS, WIDTH, seed=3)}
    path = write(tmp_path, nodes, weights)
    (before,) = answers(path, IDS)
    assert len(quantize_lookups(path, ())) == 2
    onnx.checker.check_model(onnx.load(path), full_check=True)
    (after,) = answers(path, IDS)
    assert np.linalg.norm(after - before) < 0.02 * np.linalg.norm(before)


def test_columns_of_the_smallest_numbers_stay_numbers(tmp_path):
    table = drawn(WORDS, WIDTH)
    table[:, 0] *= np.float32(1e-44)
    path = write(tmp_path, [look_up(result="y")], {"table": table})
    quantize_lookups(path, ())
    assert np.isfinite(answers(path, IDS)[0]).all()


def test_constants_in_another_file_stay_there(tmp_path):
    path = write(tmp_path, [look_up(), product()], {"table": drawn(WORDS, WIDTH), "w": drawn(WIDTH, 3, seed=2)})
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    before = path.read_bytes()
    assert quantize_lookups(path, ()) == []
    assert path.read_bytes() == before


def test_where_pairs_in_int8_are_fused_look_ups_are_not(tmp_path):
    """As on ARM: operators of integers, such as QLinearConcat, know no scale of a column."""
    scale = {"s": np.float32(0.05), "z": np.int8(0)}
    nodes = [
        look_up(),
        look_up(table="other", result="u", name="others/Gather"),
        helper.make_node("Concat", ["x", "u"], ["both"], axis=2),
        helper.make_node("QuantizeLinear", ["both", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    weights = {"table": drawn(WORDS, WIDTH), "other": drawn(WORDS, WIDTH, seed=4), **scale}
    path = write(tmp_path, nodes, weights)
    (before,) = answers(path, IDS)
    assert len(quantize_lookups(path, ())) == 2
    options = ort.SessionOptions()
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (after,) = session.run(None, {"ids": IDS})
    assert np.abs(after - before).max() <= 0.051


def untouched(kind):
    """Graphs whose table has to stay as it is: nodes, and weights."""
    table, head = drawn(WORDS, WIDTH), drawn(WIDTH, 3, seed=2)
    if kind == "tied":
        return [look_up(), helper.make_node("Transpose", ["table"], ["t"], perm=[1, 0]),
                helper.make_node("MatMul", ["x", "t"], ["y"])], {"table": table}  # fmt: skip
    if kind == "another axis":
        return [look_up(axis=1, result="y")], {"table": drawn(WIDTH, WORDS)}
    if kind == "half floats":
        return [look_up(), helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)], {
            "table": table.astype(np.float16)
        }
    if kind.startswith("with "):
        table[5, 2] = np.float32(kind.removeprefix("with "))
        return [look_up(), product()], {"table": table, "w": head}
    if kind == "small beside the rest":
        return [look_up(), product()], {"table": table, "w": drawn(WIDTH, 100 * WORDS, seed=2)}
    return [look_up(), product()], {"table": table, "w": head}


@pytest.mark.parametrize(
    "kind",
    ["tied", "another axis", "half floats", "with -inf", "with nan", "with -3.4e38", "small beside the rest", "left"],
)
def test_a_table_stays_as_it_is(tmp_path, kind):
    path = write(tmp_path, *untouched(kind))
    before = path.read_bytes()
    assert quantize_lookups(path, ["words/Gather"] if kind == "left" else ()) == []
    assert path.read_bytes() == before


def test_a_table_that_a_branch_reads_stays_as_it_is(tmp_path):
    def branch(name, nodes, result):
        return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(result, TensorProto.FLOAT, None)])

    inner = helper.make_node("ReduceSum", ["table"], ["summed"], keepdims=0)
    other = helper.make_node("Constant", [], ["none"], value_float=0.0)
    nodes = [
        helper.make_node("Size", ["ids"], ["count"]),
        helper.make_node("Cast", ["count"], ["any"], to=TensorProto.BOOL),
        helper.make_node("If", ["any"], ["more"], then_branch=branch("yes", [inner], "summed"),
                         else_branch=branch("no", [other], "none")),
        look_up(),
        helper.make_node("Add", ["x", "more"], ["y"]),
    ]  # fmt: skip
    path = write(tmp_path, nodes, {"table": drawn(WORDS, WIDTH)})
    answers(path, IDS)
    assert quantize_lookups(path, ()) == []


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**16), scale=st.floats(1e-6, 1e6), rows=st.integers(1, 40), columns=st.integers(1, 9))
def test_every_number_is_within_half_a_step_of_what_it_was(tmp_path_factory, seed, scale, rows, columns):
    table = drawn(rows, columns, seed=seed) * np.float32(scale)
    path = write(tmp_path_factory.mktemp("table"), [look_up(result="y")], {"table": table})
    assert quantize_lookups(path, ()) == ["words/Gather"]
    ids = np.arange(5 * ((rows + 4) // 5)).reshape(-1, 5) % rows
    (after,) = answers(path, ids)
    assert (np.abs(after - table[ids]) <= 0.501 * np.abs(table).max(axis=0) / 127).all()
