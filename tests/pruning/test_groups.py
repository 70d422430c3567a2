"""What hangs together is found, narrowed in all places at once, and left alone where the graph was not understood."""

from __future__ import annotations

import copy

import pytest
import torch
from nets import SHAPES, Encoder, Grouped, Joined, Mixed, make, running

from mlpack.errors import StageFailed
from mlpack.pruning.choosing import Estimate
from mlpack.pruning.depth import take_layers
from mlpack.pruning.fisher import fisher_scores, given_labels, own_answers
from mlpack.pruning.flops import work_of
from mlpack.pruning.groups import find_groups, narrow_by
from mlpack.pruning.running import answers, distance

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
GROUPS = {
    Grouped: {"stem": ("channels", 4), "grouped": ("channels", 4), "last": ("channels", 8)},
    Joined: {"left": ("channels", 8), "right": ("channels", 12), "mix": ("channels", 8), "down": ("neurons", 4)},
    Encoder: {f"encoder.layers.{at}.linear1": ("neurons", 32) for at in range(3)},
    Mixed: {},
}


def found(kind):
    net = make(kind)
    groups, left = find_groups(net, running(kind))
    return net, groups, left


@pytest.mark.parametrize("kind", GROUPS)
def test_groups_of_a_net(kind):
    _, groups, left = found(kind)
    writes = {part.path: (group.kind, group.units) for group in groups for part in group.parts if part.side == "out"}
    assert {path: writes.get(path) for path in GROUPS[kind]} == GROUPS[kind]
    assert "head" not in writes
    assert all(each.why for each in left)


@pytest.mark.parametrize("kind", [Grouped, Joined, Encoder])
def test_without_units_of_every_group_it_answers_as_with_zeros(kind):
    net, groups, _ = found(kind)
    assert groups
    plan = {group: [0, group.units - 1][: group.units - 1] for group in groups}
    narrow = copy.deepcopy(net)
    narrow_by(narrow, plan)
    silent = copy.deepcopy(net)
    with torch.no_grad():
        for group in groups:
            for part in group.parts:
                if part.side == "in":
                    layer = silent.get_submodule(part.path)
                    gone = [channel for unit in plan[group] for channel in part.channels[unit]]
                    if isinstance(layer, torch.nn.Linear):
                        layer.weight[:, gone] = 0
                    else:
                        layer.weight[:, [channel % layer.weight.shape[1] for channel in gone]] = 0
    call = running(kind)
    assert distance(answers(silent, call), answers(narrow, call)) < 1e-5
    assert work_of(narrow, call).all_parameters < work_of(net, call).all_parameters


def test_channels_that_are_turned_around_are_left():
    _, groups, left = found(Mixed)
    assert groups == []
    assert "the graph cannot follow" in {each.name: each.why for each in left}["first"]


def test_heads_that_are_tied_to_their_width_are_left():
    _, groups, left = found(Encoder)
    assert {group.kind for group in groups} == {"neurons"}
    assert any("ties the number of heads" in each.why or "takes its units together" in each.why for each in left)


@pytest.mark.parametrize("kind", [Grouped, Joined, Encoder])
def test_what_is_reckoned_is_what_is_counted(kind):
    net, groups, _ = found(kind)
    call = running(kind)
    before = work_of(net, call)
    estimate = Estimate(net, before, groups)
    assert estimate.flops({}) == pytest.approx(before.all_flops)
    plan = {group: list(range(group.units // 2)) for group in groups}
    narrow = copy.deepcopy(net)
    narrow_by(narrow, plan)
    assert estimate.flops(plan) == pytest.approx(work_of(narrow, call).all_flops, rel=1e-6)


@pytest.mark.parametrize("kind", [Grouped, Joined])
def test_units_that_do_nothing_are_worth_nothing(kind):
    net, groups, _ = found(kind)
    with torch.no_grad():
        for group in groups:
            for part in group.parts:
                if part.side == "in":
                    layer = net.get_submodule(part.path)
                    layer.weight[:, [channel % layer.weight.shape[1] for channel in part.channels[1]]] = 0
    scores = fisher_scores(net, groups, [(8, running(kind, 8), own_answers(0, ["logits"]))])
    for group in groups:
        assert scores[group][1] == pytest.approx(0, abs=1e-12)
        assert max(scores[group]) > 1e-9
        assert len(scores[group]) == group.units


def test_scores_do_not_depend_on_how_rows_are_batched():
    net, groups, _ = found(Joined)
    rows = torch.randn(6, *SHAPES[Joined], generator=torch.Generator().manual_seed(2))

    def slope(outputs):
        return outputs[0].square().sum()

    whole = fisher_scores(net, groups, [(6, lambda module: (module(rows),), slope)])
    pairs = [(2, lambda module, at=at: (module(rows[at : at + 2]),), slope) for at in (0, 2, 4)]
    apart = fisher_scores(net, groups, pairs)
    for group in groups:
        assert apart[group] == pytest.approx(whole[group], rel=1e-4)


def test_labels_are_what_they_are_of():
    made = torch.randn(5, 3, requires_grad=True)
    classes = torch.tensor([0, 2, 1, 1, 0])
    own = torch.log_softmax(made, -1)[range(5), classes].sum()
    outputs = [torch.zeros(5), made, torch.softmax(made, -1), made[:, :1]]
    assert given_labels(classes, 1, "logits")(outputs).item() == pytest.approx(own.item())
    assert given_labels(classes[:, None], 2, "probabilities")(outputs).item() == pytest.approx(own.item(), rel=1e-5)
    some = torch.tensor([0, -100, 1, -100, 0])
    assert given_labels(some, 1, "logits")(outputs).item() == pytest.approx(
        torch.log_softmax(made, -1)[[0, 2, 4], some[[0, 2, 4]]].sum().item()
    )
    unscored = given_labels(torch.full((5,), -100), 1, "logits")(outputs)
    unscored.backward()
    assert unscored.item() == 0
    assert not made.grad.any()
    numbers = torch.randn(5)
    assert given_labels(numbers, 3, "numbers")(outputs).item() == pytest.approx(
        -(made[:, 0] - numbers).square().sum().item() / 2
    )


def test_answers_are_drawn_from_what_an_output_holds():
    """Scores and the probabilities that they are of have one and the same likelihood."""
    made = torch.randn(64, 3, requires_grad=True)
    ways = {"logits": made, "probabilities": torch.softmax(made, -1)}
    found = {kind: own_answers(0, [kind])([each]) for kind, each in ways.items()}
    assert found["probabilities"].item() == pytest.approx(found["logits"].item(), rel=1e-5)


@pytest.mark.parametrize("likelihood", [own_answers(0, ["numbers"]), given_labels(torch.zeros(2), 0, "numbers")])
def test_whole_numbers_tell_nothing(likelihood):
    with pytest.raises(StageFailed, match="no output of this module has a gradient"):
        likelihood([torch.ones(2, dtype=torch.int64)])


def test_the_layer_that_does_nothing_goes_first():
    net = make(Encoder)
    with torch.no_grad():
        idle = net.encoder.layers[1]
        for each in (idle.self_attn.out_proj, idle.linear2):
            each.weight.zero_()
            each.bias.zero_()
    call = running(Encoder)
    before = answers(net, call)
    (taken,) = take_layers(net, call, 1)
    assert taken.path == "encoder.layers.1"
    assert distance(before, answers(net, call)) == pytest.approx(taken.moved)
    assert taken.moved < 1e-3
    assert [each.path for each in take_layers(net, call, 5)] != []
