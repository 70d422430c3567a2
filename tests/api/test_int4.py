"""--int4, end to end: smaller, judged, explained; what it cannot keep is refused.

The targets are CPUs that are not here, so that nothing rests on how fast this machine happens to be.
"""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

TOKENS, WIDTH = 2000, 64
ELSEWHERE = ("--target", "graviton4", "--backend", "onnxruntime")


def written(path, apart=1.0):
    """A net that looks tokens up, mixes them, and decides: two thirds of its bytes are a table.

    Every 16th hidden feature is `apart` times as large as the others where `down` reads it, and its weights as much
    smaller where `up` makes it: the answers are the same.
    """
    random = np.random.default_rng(0)
    shapes = {"table": (TOKENS, WIDTH), "up": (WIDTH, 256), "down": (256, WIDTH), "head": (WIDTH, 4)}
    weights = {name: random.standard_normal(dims) / np.sqrt(dims[0] % TOKENS or 1) for name, dims in shapes.items()}
    weights["up"][:, ::16] /= apart
    weights["down"][::16] *= apart
    nodes = [
        helper.make_node("Gather", ["table", "tokens"], ["x"], name="table/Gather"),
        helper.make_node("MatMul", ["x", "up"], ["wide"], name="up/MatMul"),
        helper.make_node("Relu", ["wide"], ["hidden"], name="relu"),
        helper.make_node("MatMul", ["hidden", "down"], ["narrow"], name="down/MatMul"),
        helper.make_node("Add", ["x", "narrow"], ["sum"], name="residual"),
        helper.make_node("ReduceMean", ["sum", "axis"], ["mean"], name="mean", keepdims=0),
        helper.make_node("MatMul", ["mean", "head"], ["scores"], name="head/MatMul"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("tokens", TensorProto.INT64, ["batch", 6])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()]
        + [numpy_helper.from_array(np.array([1]), "axis")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


@pytest.fixture
def words(place):
    """The net, and rows whose labels are its own answers."""
    import onnxruntime as ort

    written(place / "net.onnx")
    tokens = np.random.default_rng(1).integers(0, TOKENS, (700, 6))
    (scores,) = ort.InferenceSession(place / "net.onnx").run(None, {"tokens": tokens})
    np.savez(place / "data.npz", tokens=tokens, labels=scores.argmax(1))
    return ("net.onnx", "--data", "data.npz", "--name", "net")


def graph_of(place):
    return onnx.load(place / "artifacts" / "net" / "1" / "model" / "model.onnx").graph


@pytest.mark.slow
def test_int4_is_an_eighth_of_the_size_and_says_what_it_costs(cli, place, words):
    done = cli("optimize", *words, *ELSEWHERE, "--int4", "--max-drop", "25%", "--json")
    assert done.code == 0, done.err
    told = done.document
    assert told["model"]["numerics"] == "int4"
    assert told["model"]["numerics_share"] == 1.0
    assert told["model"]["quantization"]["details"]["block"] in {32, 128}
    assert told["accuracy"]["verdict"] in {"pass", "likely"}
    assert told["accuracy"]["limit_text"] == "25%"
    # Five bits each with scales and zero points; biases and the graph come on top.
    assert told["model"]["size_bytes"] < told["baseline"]["size_bytes"] / 5
    tried = {each["label"] for each in told["candidates"] if each["numerics"] == "int4"}
    assert tried == {f"int4 gptq (blocks of {block}) · onnxruntime" for block in (32, 128)}
    kinds = [node.op_type for node in graph_of(place).node]
    assert kinds.count("MatMulNBits") == 3
    assert "GatherBlockQuantized" in kinds
    weights = json.loads((place / "artifacts/net/1/reports/quantize.json").read_text())["tables"]["weights"]
    assert {row["numerics"] for row in weights if row["bytes_before"] > 5000} == {"int4"}
    explained = cli("explain", "net", "--json").document
    assert {each["module"] for each in explained["layers"]} >= {"table", "up", "down", "head"}
    assert "int4" in (place / "artifacts/net/1/report.html").read_text()
    assert cli("predict", "net", "--data", "data.npz", "--out", "answers.npz").code == 0


@pytest.mark.slow
def test_without_data_weights_are_rounded_by_themselves_and_nothing_is_claimed(cli, place, words):
    done = cli("optimize", words[0], *ELSEWHERE, "--int4", "--name", "net", "--json")
    assert done.code == 0, done.err
    assert done.document["accuracy"]["verdict"] == "none"
    assert done.document["model"]["quantization"]["method"] == "hqq"
    assert any(node.op_type == "MatMulNBits" for node in graph_of(place).node)


@pytest.mark.slow
def test_the_smallest_of_all_is_in_four_bits_where_the_limit_lets_it(cli, words):
    done = cli("optimize", *words, *ELSEWHERE, "--smallest", "--max-drop", "25%", "--json")
    assert done.code == 0, done.err
    told = done.document
    assert told["model"]["numerics"] == "int4"
    others = [each["size_bytes"] for each in told["candidates"] if each["numerics"] != "int4"]
    assert min(size for size in others if size is not None) > told["model"]["size_bytes"]


def test_where_four_bits_miss_the_limit_the_layers_that_cost_most_get_eight(cli, place, words):
    """Within each block of one layer two rows are thirty times as large as the others: sixteen steps hold not both."""
    written(place / "net.onnx", apart=30.0)
    told = ("--set", "quantize.method=hqq", "--set", "quantize.embeddings=false")
    done = cli("optimize", *words, *ELSEWHERE, "--int4", "--max-drop", "12%", *told, "--json")
    labels = [each["label"] for each in done.document.get("candidates", ())]
    assert done.code == 0, done.err
    assert any("in int8" in label for label in labels), labels
    assert done.document["model"]["quantization"]["details"]["wide"]


def test_what_cannot_be_kept_names_the_limit_that_would_pass(cli, words):
    done = cli("optimize", *words, *ELSEWHERE, "--int4", "--max-drop", "0.01%", "--set", "quantize.block=128",
               "--set", "quantize.method=rtn", "--json")  # fmt: skip
    assert done.code in {5, 6}
    if done.code == 5:
        assert "int4" in done.document["error"]["message"]
        assert "--max-drop" in done.document["error"]["hint"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("quantize.block=48",), "block"),
        (("quantize.method=static",), "method: static is not for int4"),
        (("quantize.method=rtn", "quantize.damping=0.1"), "damping is for method: gptq"),
        (("quantize.operators=all",), "operators is for int8"),
        (("quantize.embeddings=true", "target"), "no int4 tables"),
    ],
)
def test_bad_options_are_wrong_usage(cli, words, settings, said):
    target = ("--target", "a100") if "target" in settings else ELSEWHERE
    told = [part for setting in settings if setting != "target" for part in ("--set", setting)]
    done = cli("optimize", *words, *target, "--int4", *told, "--dry-run", "--json")
    assert done.code == 2, done.err
    assert said in done.document["error"]["message"]


def test_a_module_that_is_not_there_is_named_with_the_nearest(cli, words):
    done = cli("optimize", *words, *ELSEWHERE, "--int4", "--set", "quantize.wide=[dwn]", "--set", "quantize.method=rtn")
    assert done.code == 2
    assert "quantize.wide: nothing of this graph lies in 'dwn'" in done.err
    assert "did you mean 'down'?" in " ".join(done.err.split())


@pytest.mark.parametrize("numerics", ["--int4", "--bf16"])
@pytest.mark.parametrize("method", ["minmax", "mse"])
def test_a_way_to_find_ranges_is_refused_where_there_are_none(cli, words, numerics, method):
    ended = cli("optimize", *words, numerics, "--calibration-method", method, *ELSEWHERE)
    assert ended.code == 2
    assert f"{numerics} has none" in ended.err
