"""A simplified graph is kept only where it has fewer nodes and answers the same."""

from collections import Counter

import onnx
import pytest
from doors import A100, answers, relative, rows_for

from mlpack.core.targets import this_machine
from mlpack.errors import StageFailed, UsageError
from mlpack.stages.compile import Compile
from mlpack.stages.simplify import Simplify


def nodes(model):
    return [node.name for node in onnx.load(model.entry_path).graph.node]


def test_a_graph_that_gets_simpler_is_kept_with_its_names(bench, kept):
    before = kept.exported("tagger")
    outcome = Simplify().run(before, bench.job())
    assert outcome.report.metrics["kept"] == "simplified"
    assert len(nodes(outcome.model)) == outcome.report.metrics["nodes_after"] < len(nodes(before))
    assert set(nodes(outcome.model)) <= set(nodes(before))
    assert any(name.startswith("recurrent/") for name in nodes(outcome.model))
    for count in (1, 3, 7):
        rows = rows_for("tagger", count)
        assert relative(answers(before, rows)["output"], answers(outcome.model, rows)["output"]) < 1e-6


def test_a_graph_with_nothing_to_gain_stays_as_it_is(bench, kept):
    job = bench.job()
    outcome = Simplify().run(kept.exported("mlp"), job)
    assert outcome.model == kept.exported("mlp")
    assert outcome.report.metrics["kept"] == "original"
    assert "no fewer nodes" in outcome.report.metrics["why"]
    assert not list(job.out.iterdir())


def test_another_answer_keeps_the_original(bench, kept):
    given = kept.exported("tagger")
    tampered = bench.job().out
    proto = onnx.load(given.entry_path)
    for node in proto.graph.node:  # a value that onnxsim folds and a run draws anew each time
        if node.op_type == "Gemm":
            noise = onnx.helper.make_node("RandomNormalLike", [node.output[0]], ["noise"], name="noise", scale=1.0)
            total = onnx.helper.make_node("Add", ["clean", "noise"], [node.output[0]], name="noisy")
            noise.input[0] = "clean"
            node.output[0] = "clean"
    proto.graph.node.extend([noise, total])
    onnx.save(proto, tampered / given.entry)
    job = bench.job()
    outcome = Simplify().run(given.model_copy(update={"path": tampered}), job)
    assert outcome.report.metrics["kept"] == "original"
    assert "answers differently" in outcome.report.metrics["why"]
    assert not list(job.out.iterdir())


def test_external_data_is_handed_on(bench, kept):
    folder = bench.job().out
    proto = onnx.load(kept.exported("tagger").entry_path)
    onnx.save(proto, folder / "model.onnx", save_as_external_data=True, location="weights", size_threshold=0)
    model = kept.exported("tagger").model_copy(update={"path": folder})
    outcome = Simplify().run(model, bench.job())
    assert outcome.model == model
    assert "external data" in outcome.report.metrics["why"]


FUSE = Simplify(fusions="attention")


def own_operators(model):
    return Counter(node.op_type for node in onnx.load(model.entry_path).graph.node if node.domain == "com.microsoft")


def test_attention_is_fused_for_onnxruntime_alone(bench, kept):
    before = kept.exported("headed")
    outcome = FUSE.run(before, bench.job())
    counts = {row["operator"]: row["nodes"] for row in outcome.report.tables["fused"]}
    assert counts == own_operators(outcome.model)
    assert sum(counts.get(name, 0) for name in ("Attention", "MultiHeadAttention")) == 2, "one in each layer"
    assert outcome.model.only == "onnxruntime"
    for count in (1, 3, 7):
        rows = rows_for("headed", count)
        assert relative(answers(before, rows)["output"], answers(outcome.model, rows)["output"]) < 1e-5
    fused = [node.name for node in onnx.load(outcome.model.entry_path).graph.node if node.domain == "com.microsoft"]
    assert all(name.startswith("layers.") for name in fused), "they keep the path of their module"


def test_no_other_backend_is_proposed_for_a_fused_graph(bench, kept):
    fused = FUSE.run(kept.exported("headed"), bench.job()).model
    here = this_machine()
    assert [stage.backend for stage in Compile().propose(fused, here)] == ["onnxruntime"]
    with pytest.raises(UsageError, match="openvino does not run this graph's fused operators"):
        Compile(backend="openvino").propose(fused, here)
    assert "TensorRT" in FUSE.refusal(A100)
    assert FUSE.refusal(here) is None


@pytest.mark.parametrize("name", ["mlp", "transformer"], ids=["no attention", "attention of another form"])
def test_a_graph_without_attention_is_not_called_fused(bench, kept, name):
    job = bench.job()
    with pytest.raises(StageFailed, match="no attention") as caught:
        FUSE.run(kept.exported(name), job)
    assert caught.value.hint == "leave --set simplify.fusions out"


def test_a_fused_graph_that_answers_differently_is_no_result(bench, kept):
    with pytest.raises(StageFailed, match="the fused graph answers differently"):
        Simplify(fusions="attention", tolerance=1e-12).run(kept.exported("headed"), bench.job())


def test_weights_beside_the_graph_stay_beside_it(bench, kept):
    folder = bench.job().out
    proto = onnx.load(kept.exported("headed").entry_path)
    onnx.save(proto, folder / "model.onnx", save_as_external_data=True, location="weights", size_threshold=1024)
    model = kept.exported("headed").model_copy(update={"path": folder})
    outcome = FUSE.run(model, bench.job())
    assert {path.name for path in outcome.model.files()} == {"model.onnx", "model.onnx.data"}
    rows = rows_for("headed", 3)
    assert relative(answers(model, rows)["output"], answers(outcome.model, rows)["output"]) < 1e-5
