"""A simplified graph is kept only where it has fewer nodes and answers the same."""

import onnx
from doors import answers, relative, rows_for

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
