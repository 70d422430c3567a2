"""Every target of the catalogue has a rule set, and each rule set says what its family needs."""

import pytest

from mlpack.core.targets import targets
from mlpack.errors import UsageError
from mlpack.quantization.rules import RULES, rules_for


@pytest.mark.parametrize("target", targets(), ids=lambda target: target.name)
def test_every_target_names_a_rule_set_that_exists(target):
    assert rules_for(target.rules).name == target.rules


def test_tensorrt_wants_symmetric_int8_and_weights_behind_their_own_pairs():
    rules = rules_for("tensorrt-s8s8")
    assert (rules.activation, rules.symmetric_activations, rules.explicit_weights) == ("int8", True, True)


def test_only_avx2_reduces_the_range_of_weights():
    assert [name for name, rules in RULES.items() if rules.reduce_range] == ["x86-avx2"]


def test_a_misspelt_rule_set_gets_the_nearest_name():
    with pytest.raises(UsageError) as caught:
        rules_for("x86-avx")
    assert "x86-avx2" in caught.value.hint
