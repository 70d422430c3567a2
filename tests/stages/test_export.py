"""Every kind of torch model becomes an ONNX file that answers the same at any batch, with nodes named by module."""

import numpy as np
import onnx
import pytest
import torch
import zoo
from doors import INPUTS, ZOO, answers, relative, rows_for

from mlpack.errors import ModelError, StageFailed
from mlpack.stages.export import Export
from mlpack.stages.same_answers import differences

BATCH = torch.export.Dim("batch")


def names_of(model):
    return {node.name: node.op_type for node in onnx.load(model.entry_path).graph.node}


def same_as_torch(original, exported, rows):
    expected = answers(original, rows, "torch")
    got = answers(exported, rows)
    assert list(got) == list(expected)
    return max(relative(expected[name], got[name]) for name in expected)


def head(rows, count):
    return {name: array[:count] for name, array in rows.items()}


@pytest.mark.parametrize("name", ["mlp", "conv_net", "transformer", "tagger"])
def test_a_factory_answers_the_same_at_any_batch(kept, name):
    original, exported = kept.factory(name), kept.exported(name)
    assert exported.dynamic_batch
    assert exported.outputs[0].dims == original.outputs[0].dims
    for count in (1, 3, 7):
        assert same_as_torch(original, exported, rows_for(name, count)) < 1e-5


def test_a_dynamic_program_keeps_its_batch_dynamic_and_named(bench):
    path = bench.folder / "model.pt2"
    torch.export.save(torch.export.export(zoo.mlp().eval(), (torch.randn(2, 8),), dynamic_shapes=({0: BATCH},)), path)
    original = bench.load(path)
    exported = Export().run(original, bench.job()).model
    assert exported.inputs[0].dims == ("batch", 8)
    graph = onnx.load(exported.entry_path).graph
    assert [dim.dim_param for dim in graph.input[0].type.tensor_type.shape.dim] == ["batch", ""]
    assert [dim.dim_param for dim in graph.output[0].type.tensor_type.shape.dim] == ["batch", ""]
    for count in (1, 3, 7):
        assert same_as_torch(original, exported, rows_for("mlp", count)) < 1e-5
    assert "first" in {name.partition("/")[0] for name in names_of(exported)}


def test_a_static_program_stays_static(bench):
    path = bench.folder / "model.pt2"
    torch.export.save(torch.export.export(zoo.mlp().eval(), (torch.randn(4, 8),)), path)
    original = bench.load(path)
    outcome = Export().run(original, bench.job(parts={"calibration": bench.data(**rows_for("mlp", 10))}))
    assert not outcome.model.dynamic_batch
    assert outcome.model.inputs[0].dims == (4, 8)
    assert outcome.report.metrics["verified_on"] == "real"
    assert same_as_torch(original, outcome.model, rows_for("mlp", 4)) < 1e-5
    with pytest.raises(StageFailed):
        answers(outcome.model, rows_for("mlp", 3))


def test_torchscript_with_a_loop_keeps_the_loop(bench):
    path = bench.folder / "model.pt"
    torch.jit.save(torch.jit.script(zoo.Unrolled().eval()), path)
    original = bench.load(path, inputs=("x=float32:batch,steps,6",))
    exported = Export().run(original, bench.job()).model
    assert "Loop" in names_of(exported).values()
    assert exported.inputs[0].dims == ("batch", "steps", 6)
    assert exported.outputs[0].dims == ("batch", 4)
    random = torch.Generator().manual_seed(0)
    for count, steps in ((1, 5), (3, 2), (7, 9)):  # the loop runs as often as this input is long
        rows = {"x": torch.randn(count, steps, 6, generator=random).numpy()}
        assert same_as_torch(original, exported, rows) < 1e-5


@pytest.mark.parametrize("make", [torch.jit.script, lambda net: torch.jit.freeze(torch.jit.script(net))])
def test_torchscript_plain_and_frozen(bench, make):
    path = bench.folder / "model.pt"
    torch.jit.save(make(zoo.mlp().eval()), path)
    original = bench.load(path, inputs=(INPUTS["mlp"],))
    exported = Export().run(original, bench.job()).model
    for count in (1, 3, 7):
        assert same_as_torch(original, exported, rows_for("mlp", count)) < 1e-5


def test_torchscript_nodes_are_named_by_module(bench):
    path = bench.folder / "model.pt"
    torch.jit.save(torch.jit.trace(zoo.transformer().eval(), torch.zeros(2, 12, dtype=torch.int64)), path)
    exported = Export().run(bench.load(path, inputs=(INPUTS["transformer"],)), bench.job()).model
    modules = {name.rpartition("/")[0] for name in names_of(exported)}
    assert {"layers.0.attention.query", "layers.1.down", "head"} <= modules


def test_a_state_dict_is_exported_through_its_factory(bench):
    torch.manual_seed(9)  # other weights than the factory's own
    net = zoo.Mlp().eval()
    torch.save(net.state_dict(), bench.folder / "weights.pt")
    original = bench.load(bench.folder / "weights.pt", factory=f"{ZOO}:mlp", inputs=(INPUTS["mlp"],))
    exported = Export().run(original, bench.job()).model
    rows = rows_for("mlp", 5)
    expected = net(torch.from_numpy(rows["x"])).detach().numpy()
    assert relative(expected, answers(exported, rows)["output"]) < 1e-5


def test_two_inputs_and_a_tree_of_outputs(bench):
    original = bench.load(f"{ZOO}:pair", inputs=("a=float32:batch,4", "b=float32:batch,6"))
    exported = Export().run(original, bench.job()).model
    assert [spec.name for spec in exported.inputs] == ["a", "b"]
    assert [spec.name for spec in exported.outputs] == ["logits", "parts.mixed", "parts.right"]
    random = torch.Generator().manual_seed(0)
    for count in (1, 3, 7):
        rows = {
            "a": torch.randn(count, 4, generator=random).numpy(),
            "b": torch.randn(count, 6, generator=random).numpy(),
        }
        assert same_as_torch(original, exported, rows) < 1e-5
        net = zoo.pair().eval()
        expected = net(torch.from_numpy(rows["a"]), torch.from_numpy(rows["b"]))
        assert relative(expected["parts"]["right"].detach().numpy(), answers(exported, rows)["parts.right"]) < 1e-5


@pytest.mark.parametrize(("name", "operator"), [("gru_reader", "GRU"), ("lstm_reader", "LSTM")])
def test_a_recurrent_net_takes_any_length_and_stays_whole(bench, name, operator):
    original = bench.load(f"{ZOO}:{name}", inputs=("tokens=int64:batch,length",))
    exported = Export().run(original, bench.job()).model
    assert exported.inputs[0].dims == ("batch", "length")
    operators = [node.op_type for node in onnx.load(exported.entry_path).graph.node]
    assert operators.count(operator) == 2
    assert not {"Loop", "Scan"} & set(operators)
    random = np.random.default_rng(0)
    for count, length in ((1, 1), (1, 23), (4, 2), (3, 11)):
        assert same_as_torch(original, exported, {"tokens": random.integers(0, 50, (count, length))}) < 1e-5


def test_exporting_leaves_torch_as_it_was(kept):
    kept.exported("tagger")
    assert not {"gru", "lstm"} & set(vars(torch._VF))


def test_one_calibration_row_does_not_fix_the_batch(bench, kept):
    job = bench.job(parts={"calibration": bench.data(**rows_for("mlp", 1))})
    exported = Export().run(kept.factory("mlp"), job).model
    assert same_as_torch(kept.factory("mlp"), exported, rows_for("mlp", 7)) < 1e-5


def test_node_names_carry_module_paths(kept):
    named = names_of(kept.exported("transformer"))
    modules = {name.rpartition("/")[0] for name in named}
    wanted = {"embedding", "head", *(f"layers.{at}.attention.{part}" for at in (0, 1) for part in ("query", "out"))}
    assert wanted <= modules
    assert len(named) == len(onnx.load(kept.exported("transformer").entry_path).graph.node), "names are unique"
    known = {name for name, _ in zoo.transformer().named_modules()}
    assert modules <= known
    recurrent = {name.rpartition("/")[0] for name in names_of(kept.exported("tagger"))}
    assert recurrent <= {name for name, _ in zoo.tagger().named_modules()}


def test_a_difference_beyond_the_tolerance_names_output_and_size(bench, kept):
    with pytest.raises(StageFailed, match=r"output 'output' at batch \d+: relative difference \S+e-0\d, largest"):
        Export(tolerance=1e-12).run(kept.factory("transformer"), bench.job())


def test_a_tampered_file_is_found_out(bench, kept):
    original, exported = kept.factory("mlp"), kept.exported("mlp")
    job = bench.job()
    proto = onnx.load(exported.entry_path)
    bias = next(weight for weight in proto.graph.initializer if weight.name == "inner.last.bias")
    moved = onnx.numpy_helper.to_array(bias) + 0.25
    bias.CopyFrom(onnx.numpy_helper.from_array(moved, bias.name))
    onnx.save(proto, job.out / "model.onnx")
    tampered = exported.model_copy(update={"path": job.out})
    rows = rows_for("mlp", 6)
    assert set(differences(original, exported, "onnxruntime", rows, job, 1e-3)) == {"output"}
    with pytest.raises(StageFailed, match=r"output 'output' at batch 1: .* largest 0.25 ") as caught:
        differences(original, tampered, "onnxruntime", rows, job, 1e-3)
    assert caught.value.exit_code == 4


def test_control_flow_that_depends_on_values_is_refused(bench, kept):
    with pytest.raises(ModelError, match="data-dependent") as caught:
        Export().run(kept.factory("branching"), bench.job())
    assert caught.value.exit_code == 2
    assert "torch.where" in caught.value.hint
    assert not list(bench.job().out.iterdir())


def test_an_onnx_model_is_handed_on_as_it_is(bench, kept):
    given = kept.exported("mlp")
    assert Export().run(given, bench.job()).model == given


def test_two_runs_give_the_same_bytes(bench, kept):
    again = Export().run(kept.factory("mlp"), bench.job()).model
    assert again.entry_path.read_bytes() == kept.exported("mlp").entry_path.read_bytes()
