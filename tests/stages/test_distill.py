"""A damaged, pruned or smaller module learns to answer as the original does; what cannot learn is refused."""

import textwrap
from collections import OrderedDict

import numpy as np
import pytest
import torch
from doors import INPUTS, ZOO, answers, relative, rows_for
from torch import nn

from mlpack.backends.torch import load_module
from mlpack.backends.torch_changed import save_changed
from mlpack.core.loader import Loader
from mlpack.errors import DataError, ModelError, StageFailed, UsageError
from mlpack.stages.distill import Distill
from mlpack.stages.distill_student import own, write_own

QUICK = {"epochs": 12, "learning_rate": 0.01, "patience": 0}


def damaged(model, job, noise=0.3):
    """The model with noise on its weights, as a stage before would hand it over."""
    module = load_module(model).inner
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for each in module.parameters():
            each.add_(noise * each.abs().mean() * torch.randn(each.shape, generator=generator))
    return save_changed(model, module, job.out)


def agreement(one, other, inputs):
    return float(
        np.mean(
            answers(one, inputs, "torch")["output"].argmax(1) == answers(other, inputs, "torch")["output"].argmax(1)
        )
    )


def _scores(model, inputs):
    """Scores of classes mean the same with any number added to all of a row."""
    found = answers(model, inputs, "torch")["output"]
    return found - found.mean(1, keepdims=True)


def training_rows(bench, name, count=300, labels=None):
    arrays = rows_for(name, count, seed=7)
    return bench.data(**arrays, **({} if labels is None else {"labels": labels(arrays)}))


def learnt(bench, model, original, data, **options):
    job = bench.job(parts={"train": data}, baseline=original)
    return Distill(**{**QUICK, **options}).run(model, job)


@pytest.mark.parametrize(("name", "outputs"), [("mlp", "auto"), ("conv_net", "numbers"), ("transformer", "auto")])
def test_what_was_damaged_learns_from_the_original_alone(bench, kept, name, outputs):
    original = kept.factory(name)
    model = damaged(original, bench.job())
    outcome = learnt(bench, model, original, training_rows(bench, name), outputs=outputs)
    unseen = rows_for(name, 200, seed=9)
    before, after, worse = (_scores(each, unseen) for each in (original, outcome.model, model))
    assert relative(before, after) < 0.8 * relative(before, worse)
    metrics, history = outcome.report.metrics, outcome.report.tables["history"]
    assert metrics["alpha"] == 0
    assert metrics["best_step"] > 0
    assert metrics["held_out_loss"][1] < metrics["held_out_loss"][0]
    assert metrics["teacher_parameters"] == metrics["student_parameters"]
    assert {"step", "loss", "held_out_loss", "held_out_right", "seconds"} <= set(history[0])
    assert outcome.model.format == "torch"


def test_labels_and_teacher_together(bench, kept):
    original = kept.factory("mlp")

    def as_original(arrays):
        return answers(original, arrays, "torch")["output"].argmax(1)

    model = damaged(original, bench.job(), noise=1.0)
    data = training_rows(bench, "mlp", labels=as_original)
    for options in ({}, {"alpha": 1}):
        outcome = learnt(bench, model, original, data, **options)
        unseen = rows_for("mlp", 300, seed=9)
        assert agreement(outcome.model, original, unseen) > agreement(model, original, unseen)
        assert outcome.report.metrics["right_is"] == "labels"
        first, best = outcome.report.metrics["held_out_right"]
        assert best > first


def test_a_label_of_no_class_is_told_with_its_row(bench, kept):
    original = kept.factory("mlp")
    labels = np.arange(300) % 3
    labels[17] = 3
    model, data = damaged(original, bench.job()), training_rows(bench, "mlp", labels=lambda _: labels)
    with pytest.raises(DataError, match="training row 17 has the label 3, and the output has 3 columns"):
        learnt(bench, model, original, data)


def test_classes_are_learnt_from_labels_beside_numbers_of_the_teacher(bench, kept):
    original = kept.factory("mlp")
    model = damaged(original, bench.job(), noise=1.0)
    data = training_rows(bench, "mlp", labels=lambda arrays: answers(original, arrays, "torch")["output"].argmax(1))
    metrics = learnt(bench, model, original, data, outputs="numbers", epochs=4).report.metrics
    assert metrics["right_is"] == "labels"
    assert metrics["held_out_right"][1] > metrics["held_out_right"][0]


TWO_ANSWERS = """
import torch
from torch import nn

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.value, self.kind = nn.Linear(8, 1), nn.Linear(8, 3)

    def forward(self, x):
        return {"value": self.value(x), "kind": self.kind(x)}
"""


@pytest.mark.parametrize(("alpha", "right_is"), [(1, None), (0.5, "teacher")])
def test_labels_that_are_numbers_beside_an_output_of_classes(bench, tmp_path, alpha, right_is):
    (tmp_path / "two.py").write_text(TWO_ANSWERS)
    original = bench.load(f"{tmp_path}/two.py:Two", inputs=(INPUTS["mlp"],))
    data = training_rows(bench, "mlp", labels=lambda arrays: arrays["x"][:, :1])
    metrics = learnt(bench, original, original, data, alpha=alpha, epochs=1).report.metrics
    assert metrics["right_is"] == right_is


def test_the_same_seed_gives_the_same_files(bench, kept):
    original = kept.factory("mlp")
    model = damaged(original, bench.job())
    data = training_rows(bench, "mlp")
    one, other = (learnt(bench, model, original, data, epochs=2).model for _ in range(2))
    assert one.digests() == other.digests()


STUDENT = """
import torch
from torch import nn

class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(8, 6)
        self.last = nn.Linear(6, 3)

    def forward(self, x):
        return self.last(torch.relu(self.first(x)))

def small():
    return Small()

def of_another_width():
    return nn.Linear(9, 3)

def of_other_outputs():
    made = Small()
    made.last = nn.Linear(6, 5)
    return made

def no_module():
    return 3

def drawn():
    made = Small()
    made.shift = torch.randn(6)
    made.first.register_forward_hook(lambda _, __, given: given + made.shift)
    return made
"""


@pytest.fixture
def student(tmp_path):
    file = tmp_path / "student.py"
    file.write_text(textwrap.dedent(STUDENT))
    return file


def test_a_smaller_module_of_the_users_learns_it(bench, kept, student):
    original = kept.factory("mlp")
    outcome = learnt(
        bench, original, original, training_rows(bench, "mlp", 600), student=f"{student}:small", epochs=40,
        hidden=("first=first",),
    )  # fmt: skip
    loader = Loader.read(outcome.model.path)
    assert (loader.kind, loader.reference) == ("factory", f"{student}:small")
    assert outcome.model.size_bytes < original.size_bytes
    assert outcome.report.metrics["student_parameters"] < outcome.report.metrics["teacher_parameters"]
    assert (outcome.model.inputs, outcome.model.outputs) == (original.inputs, original.outputs)
    unseen = rows_for("mlp", 300, seed=9)
    assert agreement(outcome.model, original, unseen) > 0.8
    student.unlink()
    assert answers(outcome.model, unseen, "torch")["output"].shape == (300, 3), "it carries its code"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("of_another_width", "forward.*of the student"),
        ("of_other_outputs", r"the student gives output \[32, 5\], and the original output \[32, 3\]"),
        ("no_module", "not an nn.Module"),
        ("smal", "has no name 'smal'"),
    ],
)
def test_a_student_that_does_not_fit_is_refused(bench, kept, student, name, said):
    original = kept.factory("mlp")
    with pytest.raises(ModelError, match=said):
        learnt(bench, original, original, training_rows(bench, "mlp"), student=f"{student}:{name}")


def unlearnt(*_, **__):
    raise AssertionError("it learns what cannot be kept")


def test_what_cannot_be_kept_is_told_before_it_learns(bench, kept, student, monkeypatch):
    monkeypatch.setattr("mlpack.training.loop.train", unlearnt)
    data = training_rows(bench, "mlp")
    with pytest.raises(StageFailed, match="answers differently in output 'output'"):
        learnt(bench, kept.factory("mlp"), kept.factory("mlp"), data, student=f"{student}:drawn")
    original = bench.load(f"{student}:drawn", inputs=(INPUTS["mlp"],))
    model = bench.load(f"{student}:drawn", inputs=(INPUTS["mlp"],))
    with pytest.raises(StageFailed, match="answers differently in output 'output'"):
        learnt(bench, model, original, data, alpha=0)


def test_a_student_of_what_stays_on_the_disk_does_not(bench, kept, student):
    original = kept.factory("mlp")
    job = bench.job(baseline=original.model_copy(update={"on_disk": True}))
    assert not write_own(own(f"{student}:small", job).inner, job).on_disk


def test_another_student_is_another_key(student):
    stage = Distill(student=f"{student}:small")
    before = stage.keyed()
    assert Distill(student=f"{student}:small", checkpoint_s=1).keyed() == before
    assert Distill(student=f"{student}:small", epochs=3).keyed() != before
    student.write_text(student.read_text().replace("6", "7"))
    assert stage.keyed() != before


@pytest.mark.parametrize("how", ["auto", ("body",), ("stem=stem",)])
def test_hidden_states_are_matched(bench, kept, how):
    original = kept.factory("conv_net")
    model = damaged(original, bench.job())
    outcome = learnt(bench, model, original, training_rows(bench, "conv_net", 100), hidden=how, epochs=2)
    matched = [tuple(each) for each in outcome.report.metrics["hidden"]]
    assert matched == {"auto": [("stem", "stem"), ("body", "body")]}.get(how, [(how[0].split("=")[0],) * 2])


def test_maps_of_hidden_states_follow_the_seed(bench, student, tmp_path):
    torch.manual_seed(0)
    # Its function seeds nothing, unlike those of the zoo.
    whole = nn.Sequential(OrderedDict(first=nn.Linear(8, 6), act=nn.ReLU(), last=nn.Linear(6, 3)))
    torch.save(whole.state_dict(), tmp_path / "whole.pt")
    original = bench.load(tmp_path / "whole.pt", factory=f"{student}:small", inputs=(INPUTS["mlp"],))
    module = load_module(original).inner
    first, last = module.first, module.last
    first.weight, first.bias = (nn.Parameter(each[:4].clone()) for each in (first.weight, first.bias))
    last.weight = nn.Parameter(last.weight[:, :4].clone())
    first.out_features = last.in_features = 4
    model, data = save_changed(original, module, bench.job().out), training_rows(bench, "mlp", 60)
    made = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        outcome = learnt(bench, model, original, data, hidden=("first",), epochs=2)
        assert outcome.report.metrics["best_step"] > 0
        made.append(outcome.model.digests())
    assert made[0] == made[1]


def test_layers_of_a_shorter_student_match_those_at_the_same_depth():
    from mlpack.stages.distill_hidden import pairs

    def of(layers):
        return nn.ModuleDict({"layers": nn.ModuleList(nn.Linear(2, 2) for _ in range(layers)), "head": nn.Linear(2, 2)})

    assert pairs(of(2), of(6), "auto") == [("layers.0", "layers.2"), ("layers.1", "layers.5")]
    assert pairs(of(3), of(3), "auto") == [(f"layers.{at}", f"layers.{at}") for at in range(3)]
    with pytest.raises(UsageError, match=r"unknown module 'layers\.9'"):
        pairs(of(2), of(6), ("layers.9",))


def test_what_has_nothing_to_learn_is_refused(bench, kept):
    original = kept.factory("mlp")
    with pytest.raises(UsageError, match="given the original itself"):
        learnt(bench, original, original, training_rows(bench, "mlp"))
    with pytest.raises(UsageError, match="nothing to learn from") as refused:
        Distill().run(original, bench.job(baseline=original))
    assert "--train" in refused.value.hint
    with pytest.raises(UsageError, match="have no labels"):
        learnt(bench, original, original, training_rows(bench, "mlp"), alpha=0.3)
    with pytest.raises(DataError, match="fit no output"):
        learnt(
            bench, damaged(original, bench.job()), original,
            training_rows(bench, "mlp", labels=lambda arrays: np.zeros((len(arrays["x"]), 9), np.int64)),
        )  # fmt: skip


def test_a_graph_without_a_module_is_refused_before_anything_runs(bench, tmp_path):
    import sys

    sys.path.insert(0, str(ZOO.parent))
    from zoo import mlp

    x = torch.zeros(4, 8)
    program = torch.export.export(mlp(), (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, tmp_path / "mlp.pt2")
    model = bench.load(tmp_path / "mlp.pt2")
    with pytest.raises(ModelError, match="no module that could learn: an exported program"):
        Distill().propose(model, None)


def test_a_graph_can_teach(bench, tmp_path, student):
    import sys

    sys.path.insert(0, str(ZOO.parent))
    from zoo import mlp

    traced = torch.jit.trace(mlp().eval(), torch.zeros(4, 8))
    torch.jit.save(traced, tmp_path / "mlp.pt")
    original = bench.load(tmp_path / "mlp.pt", inputs=(INPUTS["mlp"],))
    stage = Distill(**{**QUICK, "student": f"{student}:small", "epochs": 30})
    (proposed,) = stage.propose(original, None)
    data = training_rows(bench, "mlp", 600)
    outcome = proposed.run(original, bench.job(parts={"train": data}, baseline=original))
    first, best = outcome.report.metrics["held_out_loss"]
    assert best < first / 2


def test_a_fixed_batch_is_kept(bench):
    original = bench.load(f"{ZOO}:mlp", inputs=("x=float32:4,8",), static_batch=True)
    model = damaged(original, bench.job())
    outcome = learnt(bench, model, original, training_rows(bench, "mlp", 100), epochs=2)
    assert outcome.report.metrics["steps"] == 2 * (92 // 4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"alpha": 1, "temperature": 4.0}, "temperature is for what the teacher answers"),
        ({"hidden_loss": "cosine"}, "hidden_loss is for hidden states"),
    ],
)
def test_options_without_effect_clash(options, said):
    assert said in Distill(**options).clash()
    assert Distill(alpha=1).clash() is None
    assert Distill(hidden="auto", hidden_loss="cosine").clash() is None


def test_all_that_decides_what_is_written_is_part_of_the_key():
    assert {"mlpack.stages.samples", "mlpack.backends.torch_surgery", "mlpack.core.weights"} <= {*Distill.code}


def test_what_was_set_to_zero_stays_zero(bench, kept):
    original = kept.factory("mlp")
    module = load_module(original).inner
    with torch.no_grad():
        for each in (module.first.weight, module.last.weight):
            each[each.abs() < each.abs().median()] = 0
    zeros = {name: each == 0 for name, each in module.named_parameters() if each.ndim > 1}
    model = save_changed(original, module, bench.job().out)
    outcome = learnt(bench, model, original, training_rows(bench, "mlp"), epochs=4)
    assert outcome.report.metrics["best_step"] > 0
    for name, each in load_module(outcome.model).inner.named_parameters():
        if name in zeros:
            assert bool((each[zeros[name]] == 0).all())
            assert bool((each[~zeros[name]] != 0).all())
