"""A pruned module: smaller, still the same function of what is left, exported as it is; and what is refused."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from doors import A100, AVX2, INPUTS, ZOO, answers, of_batch, relative, rows_for
from pydantic import ValidationError
from tiny_llama import llama, save

# Test folders are no packages.
sys.path.insert(0, str(Path(__file__).parent.parent / "sources"))

import tiny_hf

from mlpack.backends.torch_loader import load_inner
from mlpack.core.loader import Loader
from mlpack.core.targets import load_target, this_machine
from mlpack.errors import ModelError, StageFailed
from mlpack.stages.export import Export
from mlpack.stages.prune import Prune

pytest.importorskip("torch_pruning")
# Exporting takes longer than all the rest.
EXPORTED = {"bert", "vit"}


def inner(model):
    return load_inner(model.path, Loader.read(model.path))


def hf(kind, bench, folder, **changes):
    tiny_hf.make(kind, **changes).save_pretrained(folder / kind)
    data = bench.data(**tiny_hf.rows(kind, 24))
    return bench.load(folder / kind, data=data), data


@pytest.mark.parametrize("criterion", ["magnitude", "taylor"])
@pytest.mark.parametrize("scope", ["global", "uniform"])
@pytest.mark.parametrize("name", ["conv_net", "residual"])
def test_so_much_of_the_work_is_gone(bench, name, scope, criterion):
    model = bench.factory(name)
    done = Prune(amount=0.3, criterion=criterion, scope=scope, multiple=2).run(model, bench.job())
    told = done.report.metrics
    assert 0.295 <= told["flops_gone"] < 0.5
    assert told["flops_after"] == pytest.approx((1 - told["flops_gone"]) * told["flops_before"], rel=1e-3)
    assert told["parameters_after"] == sum(each.numel() for each in inner(done.model).parameters())
    assert told["parameters_before"] == sum(each.numel() for each in inner(model).parameters())
    rows = done.report.tables["modules"]
    assert sum(row["flops_before"] - row["flops_after"] for row in rows) == told["flops_before"] - told["flops_after"]
    assert (done.model.inputs, done.model.outputs) == (model.inputs, model.outputs)
    made = inner(done.model)
    assert made.stem.conv.in_channels == 3
    assert made.head.out_features == 4
    widths = {each.out_channels for each in made.modules() if isinstance(each, torch.nn.Conv2d)}
    assert all(width % 2 == 0 for width in widths)


def test_what_is_exported_is_the_pruned_module(bench, kept):
    done = Prune(amount=0.5, multiple=2).run(kept.factory("residual"), bench.job())
    exported = Export().run(done.model, bench.job()).model
    for count in (1, 5):
        given = rows_for("residual", count)
        assert relative(answers(done.model, given, "torch")["output"], answers(exported, given)["output"]) < 1e-4
    assert exported.size_bytes < kept.exported("residual").size_bytes


def test_channels_that_do_nothing_go_without_a_difference(bench):
    model = bench.factory("dead_channels")
    done = Prune(amount=0.05, multiple=1).run(model, bench.job())
    given = rows_for("dead_channels", 16)
    before, after = (answers(each, given, "torch")["output"] for each in (model, done.model))
    assert done.report.metrics["flops_gone"] >= 0.045
    assert relative(before, after) < 0.05


def test_once_more_is_the_same(bench):
    model = bench.factory("residual")
    prints = {Prune(amount=0.4, multiple=2).run(model, bench.job()).model.fingerprint() for _ in range(2)}
    assert len(prints) == 1
    assert Prune(amount=0.4, multiple=2).run(model, bench.job()).model.fingerprint() != model.fingerprint()


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta", "vit", "tagger", "encoder"])
def test_heads_and_neurons_of_transformers_go(kind, bench, tmp_path):
    sizes = {"num_attention_heads": 4} if kind != "distilbert" else {"n_heads": 4}
    model, data = hf(kind, bench, tmp_path, **sizes)
    done = Prune(amount=0.3, scope="uniform", multiple=8).run(model, bench.job(parts={"calibration": data}))
    kinds = {row["kind"] for row in done.report.tables["modules"]}
    assert kinds == {"heads", "neurons"}
    assert done.report.metrics["flops_gone"] >= 0.295
    # At a length of its own, and in the runtime that serves it.
    given = tiny_hf.rows(kind, 5, 9, seed=3)
    wanted = answers(done.model, given, "torch")
    assert all(np.isfinite(array).all() for array in wanted.values())
    if kind in EXPORTED:
        again = Export().run(done.model, bench.job(parts={"calibration": data})).model
        found = answers(again, given)
        assert all(relative(array, found[name]) < 1e-4 for name, array in wanted.items())
    assert {spec.name: spec.dims for spec in done.model.outputs} == {spec.name: spec.dims for spec in model.outputs}


def test_heads_alone_and_whole_layers(bench, tmp_path):
    model, data = hf("bert", bench, tmp_path, num_attention_heads=4, num_hidden_layers=4)
    job = bench.job(parts={"calibration": data})
    heads = Prune(amount=0.2, kinds=("heads",)).run(model, job)
    assert {row["kind"] for row in heads.report.tables["modules"]} == {"heads"}
    one = [layer.attention.self for layer in inner(heads.model).bert.encoder.layer]
    assert all(each.all_head_size == each.query.out_features == 8 * each.num_attention_heads for each in one)
    assert sum(each.num_attention_heads for each in one) < 16
    deep = Prune(amount=0.5, layers=2).run(model, bench.job(parts={"calibration": data}))
    assert len(inner(deep.model).bert.encoder.layer) == 2
    assert len(deep.report.tables["layers_taken"]) == 2
    assert deep.report.metrics["flops_gone"] >= 0.495
    with pytest.raises(StageFailed, match="3 of 9 layers can be taken out"):
        Prune(amount=0.5, layers=9).run(model, bench.job(parts={"calibration": data}))


def test_two_inputs_and_what_is_excluded(bench):
    model = bench.factory("siamese")
    done = Prune(amount=0.3, multiple=1).run(model, bench.job())
    assert inner(done.model).shared.out_features < 8
    assert inner(done.model).shared.in_features == 8
    with pytest.raises(StageFailed, match=r"nothing of this module can go with these options \(head: ") as refused:
        Prune(amount=0.3, multiple=1, exclude=("shared",)).run(model, bench.job())
    assert "--prune" not in refused.value.hint


def test_what_splits_channels_in_its_own_way_is_left_alone(bench):
    """Two heads, and nowhere a number that says so: their widths stay, the neurons go."""
    done = Prune(amount=0.2, multiple=1).run(bench.factory("headed"), bench.job())
    made = inner(done.model)
    assert all(layer.attention.query.out_features == 32 for layer in made.layers)
    assert any(layer.up.out_features < 64 for layer in made.layers)
    left = {row["module"]: row["why"] for row in done.report.tables["left"]}
    assert any(name.startswith("layers.0.attention") for name in left)


def test_recurrent_layers_are_left_alone(bench):
    with pytest.raises(StageFailed, match=r"nothing of this module can go with these options \(head: "):
        Prune(amount=0.3).run(bench.factory("tagger"), bench.job())


def test_slow_layers_go_first(bench):
    model = bench.factory("residual")
    done = Prune(amount=0.3, criterion="latency", multiple=2).run(model, bench.job(target=this_machine()))
    assert done.report.metrics["flops_gone"] >= 0.295
    assert "another" in Prune(amount=0.3, criterion="latency").refusal(A100)


@pytest.mark.parametrize(
    ("pattern", "name", "amount"),
    [("unstructured", "mlp", 0.5), ("unstructured", "mlp", 0.3), ("2:4", "mlp", 0.5), ("2:4", "conv_net", 0.5)],
)
@pytest.mark.parametrize("criterion", ["taylor", "magnitude"])
def test_masks_are_zeros_in_the_weights(bench, pattern, name, amount, criterion):
    model = bench.factory(name)
    done = Prune(amount=amount, pattern=pattern, criterion=criterion, force=True).run(model, bench.job())
    table = {row["module"]: row for row in done.report.tables["modules"]}
    for path, row in table.items():
        weight = inner(done.model).get_submodule(path).weight
        assert int((weight == 0).sum()) == row["zeros"]
        if pattern == "2:4" and weight.shape[1] % 4 == 0:
            assert row["zeros"] == weight.numel() // 2
    if pattern == "unstructured":
        total = sum(row["weights"] for row in table.values())
        assert sum(row["zeros"] for row in table.values()) == round(amount * total)
        assert done.report.metrics["zeros"] == pytest.approx(amount, abs=0.5 / total)


def test_where_a_mask_gains_nothing_it_is_refused_unless_forced():
    here, a100, t4 = this_machine(), A100, load_target("t4")
    for pattern, target in (("unstructured", here), ("unstructured", a100), ("2:4", here), ("2:4", AVX2), ("2:4", t4)):
        reason = Prune(amount=0.5, pattern=pattern).refusal(target)
        assert "--force" in reason
        assert target.title in reason
        assert Prune(amount=0.5, pattern=pattern, force=True).refusal(target) is None
    assert Prune(amount=0.5, pattern="2:4").refusal(a100) is None
    assert Prune(amount=0.5).refusal(here) is None


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"pattern": "2:4", "amount": 0.3}, "half of the weights"),
        ({"pattern": "unstructured", "layers": 1}, "layers is for pattern: structured"),
        ({"pattern": "unstructured", "scope": "uniform", "most": 0.5}, "scope and most are for pattern: structured"),
        ({"pattern": "2:4", "amount": 0.5, "criterion": "latency"}, "latency is for pattern: structured"),
        ({"force": True}, "force is for masks"),
        ({}, None),
    ],
)
def test_options_without_effect_clash(options, told):
    found = Prune(**{"amount": 0.5, **options}).clash()
    assert found is None if told is None else told in found


@pytest.mark.parametrize("amount", [0, 1, 1.5, -0.1])
def test_a_share_is_between_nothing_and_all(amount):
    with pytest.raises(ValidationError):
        Prune(amount=amount)


def test_a_graph_is_refused_with_the_reason(bench, tmp_path):
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()
    torch.export.save(torch.export.export(net, (torch.zeros(2, 4),)), tmp_path / "net.pt2")
    with pytest.raises(ModelError, match="there is no module that could be changed: an exported program"):
        Prune(amount=0.3).run(bench.load(tmp_path / "net.pt2"), bench.job())


def test_so_much_cannot_go(bench):
    with pytest.raises(StageFailed, match="95% of the FLOPs cannot go") as refused:
        Prune(amount=0.95).run(bench.factory("conv_net"), bench.job())
    most = re.search(r"--prune (\d+)%", refused.value.hint)
    assert "prune.most=0.95" in refused.value.hint
    Prune(amount=int(most[1]) / 100).run(bench.factory("conv_net"), bench.job())
    with pytest.raises(StageFailed, match="cannot go") as refused:
        Prune(amount=0.99, most=0.97).run(bench.factory("conv_net"), bench.job())
    assert "prune.most" not in refused.value.hint


def test_the_target_says_which_multiple_it_likes(bench):
    assert (load_target("a100").multiple, AVX2.multiple, load_target("zen5").multiple) == (32, 8, 16)
    model = bench.factory("wide") if "wide" in INPUTS else bench.factory("mlp")
    done = Prune(amount=0.3).run(model, bench.job(target=AVX2))
    assert inner(done.model).first.out_features % 8 == 0
    assert np.isfinite(answers(done.model, rows_for("mlp", 2), "torch")["output"]).all()


def test_batch_norms_are_measured_again_on_real_rows(bench):
    model = bench.factory("conv_net")
    image = rows_for("conv_net", 64)["image"]
    parts = {"calibration": bench.data(image=image)}
    stages = {
        norms: Prune(amount=0.4, multiple=2, norms=norms).run(model, bench.job(parts=parts))
        for norms in ("measured", "kept")
    }
    assert stages["measured"].report.metrics["norms_measured"] == 2
    made, kept = inner(stages["measured"].model), inner(stages["kept"].model)
    with torch.no_grad():
        before_norm = made.stem.conv(torch.from_numpy(image))
    assert torch.allclose(made.stem.norm.running_mean, before_norm.mean((0, 2, 3)), atol=1e-5)
    assert not torch.allclose(made.body.norm.running_mean, kept.body.norm.running_mean)
    assert torch.equal(made.body.conv.weight, kept.body.conv.weight)
    # Of noise nothing is learnt.
    assert Prune(amount=0.4, multiple=2).run(model, bench.job()).report.metrics["norms_measured"] == 0


@pytest.mark.parametrize(("batch", "samples"), [(None, 1), (None, 31), (1, 256), (48, 256)])
def test_few_rows_leave_batch_norms_as_they_are(bench, batch, samples):
    model = bench.factory("conv_net")
    if batch is not None:
        model = of_batch(model, batch)
    parts = {"calibration": bench.data(image=rows_for("conv_net", 40)["image"])}
    done = Prune(amount=0.4, multiple=2, samples=samples).run(model, bench.job(parts=parts))
    assert done.report.metrics["norms_measured"] == 0
    for norm in (each for each in inner(done.model).modules() if isinstance(each, torch.nn.BatchNorm2d)):
        assert norm.running_mean.any()
        assert not torch.equal(norm.running_var, torch.ones_like(norm.running_var))


def test_batch_norms_of_a_small_fixed_batch_are_measured_on_all_rows(bench):
    model = of_batch(bench.factory("conv_net"), 8)
    image = rows_for("conv_net", 64)["image"]
    done = Prune(amount=0.4, multiple=2).run(model, bench.job(parts={"calibration": bench.data(image=image)}))
    assert (done.report.metrics["norms_measured"], done.report.metrics["rows"]) == (2, 64)
    made = inner(done.model)
    with torch.no_grad():
        before_norm = made.stem.conv(torch.from_numpy(image))
    assert torch.allclose(made.stem.norm.running_mean, before_norm.mean((0, 2, 3)), atol=1e-5)


THREADS = """
import torch
from pathlib import Path
from zoo import Mlp

class Counting(Mlp):
    def forward(self, x):
        with Path(__file__).with_name("threads.txt").open("a") as file:
            file.write(f"{torch.get_num_threads()}\\n")
        return super().forward(x)

def counting():
    torch.manual_seed(0)
    return Counting().eval()
"""


def test_it_runs_with_the_threads_of_the_job_and_is_kept_under_them(bench, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ZOO.parent)
    (tmp_path / "net.py").write_text(THREADS)
    model = bench.load(f"{tmp_path}/net.py:counting", inputs=("x=float32:batch,8",))
    (tmp_path / "threads.txt").unlink()
    before = torch.get_num_threads()
    Prune(amount=0.3, multiple=1).run(model, bench.job(threads=3))
    assert set((tmp_path / "threads.txt").read_text().split()) == {"3"}
    assert torch.get_num_threads() == before
    assert Prune.keyed_by_threads


def test_weights_on_the_disk_are_not_pruned(bench, tmp_path):
    folder = save(llama(tied=True), tmp_path / "llama")
    model = bench.load(folder, weights="disk")
    with pytest.raises(ModelError, match=r"its weights stay on the disk.*--weights memory"):
        Prune(amount=0.3).propose(model, AVX2)
    with pytest.raises(ModelError, match="its weights stay on the disk"):
        Prune(amount=0.3).run(model, bench.job())
    in_memory = bench.load(folder, weights="memory")
    assert Prune(amount=0.3).propose(in_memory, AVX2) == (Prune(amount=0.3),)
