"""Which layers go back to float, and in how few attempts."""

from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from mlpack.core.report import Report
from mlpack.stages.quantize import Quantize
from mlpack.stages.quantize_milder import milder, ranked, ranked_by_weights
from mlpack.stages.quantize_training import QuantizedTraining

LAYERS = st.lists(
    st.tuples(st.floats(1e-6, 1), st.floats(0.001, 1), st.floats(0.0, 2.0)), min_size=1, max_size=40
)  # fmt: skip


def reports(layers, *, timed=True):
    whole = sum(share for _, share, _ in layers)
    rows = [
        {
            "layer": f"m{at}",
            "nodes": [f"m{at}/a", f"m{at}/b"],
            "noise": noise,
            "share": share / whole,
            "weights": 100 * at,
        }
        for at, (noise, share, _) in enumerate(layers)
    ]
    noise = sum(row["noise"] for row in rows)
    found = {"measure_sensitivity": Report(metrics={"noise": noise}, tables={"layers": rows})}
    if timed:
        times = [{"module": f"m{at}", "before": gain, "after": 0.0} for at, (_, _, gain) in enumerate(layers)]
        found["time_layers"] = Report(tables={"modules": times})
    return found


def play(stage, found, allowed, excess=3.0):
    """All proposals; a form holds where no more than `allowed` of the noise is left."""
    layers = {row["layer"]: row for row in found["measure_sensitivity"].tables["layers"]}
    whole = sum(row["noise"] for row in layers.values())
    proposals, made = milder(stage, found, excess), []
    answer = None
    while True:
        try:
            form = proposals.send(answer)
        except StopIteration:
            return made
        noise = (
            sum(row["noise"] for row in layers.values() if row["nodes"][0] not in (*form.exclude, *form.wide)) / whole
        )
        answer = 0.5 if noise <= allowed else 1 + noise
        made.append((form, answer <= 1))


STATIC = Quantize(numerics="int8", method="static", operators="weighted")


@given(LAYERS, st.floats(0.001, 1.2), st.booleans())
def test_attempts_are_few_and_each_one_learns_from_the_last(layers, allowed, timed):
    made = play(STATIC, reports(layers, timed=timed), allowed)
    assert 1 <= len(made) <= 6
    assert made[0][0].calibration_method == "mse"
    assert made[0][0].bias_correction
    assert not made[0][0].exclude
    if made[0][1]:
        assert len(made) == 1
    counts = [(len(form.exclude), held) for form, held in made[1:]]
    failed, held = 0, None
    for count, good in counts:
        assert count > failed
        assert held is None or count < held
        failed, held = (failed, count) if good else (count, held)


@given(LAYERS, st.booleans())
def test_what_leaves_is_the_worst_bargain_and_at_most_half_of_the_work(layers, timed):
    found = reports(layers, timed=timed)
    order = [layer.name for layer in ranked(found["measure_sensitivity"], found.get("time_layers"))]
    assert sorted(order) == sorted(f"m{at}" for at in range(len(layers)))
    shares = {row["layer"]: row["share"] for row in found["measure_sensitivity"].tables["layers"]}
    for form, _ in play(STATIC, found, 0.0):
        left = list(dict.fromkeys(node.partition("/")[0] for node in form.exclude))
        assert left == order[: len(left)]
        assert sum(shares[name] for name in left) <= 0.5 + 1e-9


def test_noise_counts_by_what_its_layer_gains():
    found = reports([(0.1, 0.5, 1.0), (0.09, 0.5, 0.1)])
    assert [layer.name for layer in ranked(found["measure_sensitivity"], found["time_layers"])] == ["m1", "m0"]
    assert [layer.name for layer in ranked(found["measure_sensitivity"], None)] == ["m0", "m1"]


def test_dynamic_int8_has_nothing_to_correct_and_a_chosen_calibration_stays():
    found = reports([(0.1, 0.1, 1.0), (0.01, 0.9, 1.0)])
    dynamic = [form for form, _ in play(Quantize(numerics="int8", method="dynamic"), found, 0.2)]
    assert [form.exclude for form in dynamic] == [("m0/a", "m0/b")]
    chosen = Quantize(numerics="int8", method="static", calibration_method="entropy")
    forms = [form for form, _ in play(chosen, found, 0.2)]
    assert {form.calibration_method for form in forms} == {"entropy"}
    assert [form.exclude for form in forms] == [(), ("m0/a", "m0/b")]


def test_layers_of_four_bits_get_eight_by_what_they_cost_for_their_weights():
    found = reports([(0.1, 0.1, 0.0), (0.3, 0.1, 9.0), (0.4, 0.8, 0.0)])
    made = play(Quantize(numerics="int4", method="gptq", block=32), found, 0.7)
    assert [layer.name for layer in ranked_by_weights(found["measure_sensitivity"])] == ["m0", "m1", "m2"]
    assert all(form.exclude == () and not form.bias_correction for form, _ in made)
    assert [(form.wide, held) for form, held in made] == [
        (("m0/a", "m0/b", "m1/a", "m1/b"), True),
        (("m0/a", "m0/b"), False),
    ]


def test_a_collapse_that_noise_does_not_explain_is_no_layers_fault():
    quiet, loud = reports([(0.002, 0.1, 1.0), (0.001, 0.9, 1.0)]), reports([(0.2, 0.1, 1.0), (0.1, 0.9, 1.0)])
    assert play(STATIC, quiet, 0.0, excess=50.0) == []
    assert play(STATIC, quiet, 0.0, excess=5.0) != []
    assert play(STATIC, loud, 0.0, excess=50.0) != []


def test_where_more_than_half_would_have_to_leave_as_much_as_may_is_tried():
    found = reports([(0.1, 1.0, 1.0)] * 8)
    forms = [form for form, _ in play(STATIC, found, 0.55, excess=8.0)]
    assert [len(form.exclude) // 2 for form in forms[1:]] == [4, 2, 3], "half of the layers hold, fewer do not"


def test_training_is_tried_where_corrections_do_not_help_and_before_layers_leave():
    found = reports([(0.1, 0.5, 1.0), (0.09, 0.5, 0.1)])
    ready = STATIC.model_copy(update={"train": "needed"})
    forms = [form for form, _ in play(ready, found, 0.3)]
    assert [form.train for form in forms[:2]] == ["needed", "always"]
    assert forms[0].bias_correction
    assert not forms[1].exclude
    assert forms[2].exclude
    assert all(form.train == "never" for form, _ in play(STATIC, found, 0.3))


def trained_for(train, training):
    """The seconds of all forms that are trained, where each form is a little better and none holds."""
    stage = STATIC.model_copy(update={"train": train, "training": QuantizedTraining(**training)})
    proposals = milder(stage, reports([(0.5**at, 0.1, 1.0) for at in range(20)]), 1.9)
    forms = [next(proposals)]
    with suppress(StopIteration):
        while True:
            forms.append(proposals.send(1.9 - len(forms) / 10))
    return [form.training.seconds for form in forms if form.train == "always"]


def test_all_trainings_together_take_no_longer_than_twice_the_first():
    needed, always = (trained_for(train, {"seconds": 60}) for train in ("needed", "always"))
    assert len(needed) > 2
    assert needed == [60 / 2**at for at in range(len(needed))]
    assert always == [30 / 2**at for at in range(len(always))], "the first was the one that missed the limit"
    assert set(trained_for("needed", {})) == {None}
