"""Which units go, in which steps, and which weights become zeros."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mlpack.pruning.choosing import blocks_of, first, ordered, step_of
from mlpack.pruning.groups import Group
from mlpack.pruning.masks import mask, weighted

WIDTHS = st.integers(2, 300)


def group(units, kind="channels"):
    return Group("layer", kind, units, (), (), (1.0,) * units)


@given(WIDTHS, st.sampled_from([8, 16, 32]))
def test_a_step_fits_into_its_width(width, multiple):
    step = step_of(width, multiple)
    assert multiple % step == 0
    assert step == 1 or width >= 2 * step


@given(WIDTHS, st.sampled_from([1, 8, 16, 32]), st.floats(0.1, 0.95))
def test_what_stays_is_a_multiple_and_never_nothing(width, multiple, most):
    scores = [float((7 * unit) % width) for unit in range(width)]
    mine = group(width)
    blocks = blocks_of(mine, scores, multiple, most)
    step = step_of(width, multiple)
    gone = 0
    for block in blocks:
        gone += len(block.units)
        assert (width - gone) % step == 0
        assert width - gone >= step
        assert gone <= most * width
        assert block.share == pytest.approx(gone / width)
    units = [unit for block in blocks for unit in block.units]
    assert len(set(units)) == len(units)
    assert [scores[unit] for unit in units] == sorted(scores)[: len(units)], "those worth least go first"


def test_heads_go_one_by_one():
    assert [block.units for block in blocks_of(group(4, "heads"), [3.0, 1.0, 2.0, 4.0], 32, 0.8)] == [(1,), (2,), (0,)]


def test_uniform_takes_the_same_share_of_all_and_global_what_is_worth_least():
    one, other = group(8), group(8)
    blocks = {
        one: blocks_of(one, [1.0] * 8, 2, 0.9),
        other: blocks_of(other, [100.0] * 8, 2, 0.9),
    }
    even = first(ordered(blocks, "uniform", lambda block: block.score), 2)
    assert {each: len(units) for each, units in even.items()} == {one: 2, other: 2}
    least = first(ordered(blocks, "global", lambda block: block.score), 2)
    assert {each: len(units) for each, units in least.items()} == {one: 4}


def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 8, 3), torch.nn.Flatten(), torch.nn.Linear(8 * 16, 5)
    )


def scored(weights):
    return {path: weight.detach().abs() for path, weight in weights.items()}


@pytest.mark.parametrize("amount", [0.1, 0.5, 0.93])
def test_a_mask_takes_the_smallest_weights_of_all(amount):
    module = net()
    weights = weighted(module, "unstructured")
    before = torch.cat([weight.detach().abs().flatten() for weight in weights.values()])
    found = mask(weights, scored(weights), "unstructured", amount)
    after = torch.cat([weight.detach().abs().flatten() for weight in weights.values()])
    assert sum(each.zeros for each in found) == round(amount * before.numel()) == int((after == 0).sum())
    assert before[after == 0].max() <= before[after != 0].min()


def test_two_of_four_go_along_what_is_summed_over():
    module = net()
    weights = weighted(module, "2:4")
    kept = {path: weight.detach().clone() for path, weight in weights.items()}
    found = {each.path: each for each in mask(weights, scored(weights), "2:4", 0.5)}
    assert found["0"].zeros == 0, "three channels are no multiple of four"
    for path in ("1", "3"):
        weight = weights[path].detach()
        fours = weight.movedim(1, -1).reshape(-1, 4)
        assert ((fours == 0).sum(1) == 2).all()
        largest = kept[path].movedim(1, -1).reshape(-1, 4).abs().topk(2, 1).values.sum(1)
        assert torch.allclose(fours.abs().sum(1), largest)


def test_transposed_convolutions_have_no_two_of_four():
    module = torch.nn.Sequential(torch.nn.ConvTranspose2d(8, 4, 3), torch.nn.Conv2d(4, 8, 3))
    assert list(weighted(module, "2:4")) == ["1"]
    assert list(weighted(module, "unstructured")) == ["0", "1"]
