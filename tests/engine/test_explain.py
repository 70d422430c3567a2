"""Why a stage would run again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mlpack.engine.explain import differences, nearest

plain = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
nested = st.recursive(plain, lambda inner: st.dictionaries(st.text("abc", min_size=1), inner, max_size=4), max_leaves=8)
ingredients = st.dictionaries(st.text("abc", min_size=1, max_size=3), nested, max_size=4)


def test_nested_keys_are_dotted_and_values_as_in_json():
    old = {"options": {"per_channel": True, "percentile": 99.9}, "seed": 0, "gone": 1}
    new = {"options": {"per_channel": False, "percentile": 99.9}, "seed": 0, "model": "a" * 64}
    assert differences(old, new) == [
        "options.per_channel: true → false", "gone: 1 → absent", "model: absent → aaaaaaaa…",
    ]  # fmt: skip


def test_another_target_is_one_line():
    old = {"target": {"name": "cpu", "isa": ["avx2"], "memory_gb": None}}
    new = {"target": {"name": "a100", "isa": [], "memory_gb": 40.0}}
    assert differences(old, new) == ["target: cpu → a100"]
    assert differences({"target": {"name": "cpu", "isa": 1}}, {"target": {"name": "cpu", "isa": 2}}) == [
        "target.isa: 1 → 2"
    ]


@given(ingredients)
def test_nothing_differs_from_itself(content):
    assert differences(content, content) == []


@given(ingredients, ingredients)
def test_as_many_differences_in_both_directions(one, two):
    assert len(differences(one, two)) == len(differences(two, one))


def test_the_nearest_has_the_fewest_differences():
    old = [{"a": 1, "b": 2}, {"a": 1, "b": 1}]
    assert nearest(old, {"a": 1, "b": 1}) == {"a": 1, "b": 1}
    assert nearest(old, {"a": 2, "b": 1}) == {"a": 1, "b": 1}
    assert nearest([], {"a": 1}) is None
