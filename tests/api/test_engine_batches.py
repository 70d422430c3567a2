"""An engine is built for the batches that its recipe measures, unless the recipe says for which."""

import pytest

from mlpack.api.wanted import recipe_for
from mlpack.core.settings import Settings
from mlpack.engine.validate import options_of
from mlpack.stages.build_engine import BuildEngine


def built(**wanted):
    """The options of the recipe's build step."""
    recipe = recipe_for(Settings(), "net.pt2", {"backend": "tensorrt", "target": "a100", **wanted})
    (step,) = [each for each in recipe.steps if each.stage == "build_engine"]
    return options_of(step)


@pytest.mark.parametrize(
    ("settings", "sizes"),
    [
        ((), (1, 8, 32)),
        (("profile_latency.batches=[1, 16, 64]",), (1, 16, 64)),
        (("profile_latency.batches=[64, 4]",), (1, 64, 64)),
        (("profile_latency.batches=[4]",), (1, 4, 32)),
        (("profile_latency.batches=[1, 2]", "check_accuracy.batch=2"), (1, 2, 2)),
        (("check_accuracy.batch=100",), (1, 8, 100)),
        (("build_engine.batches=[2, 4, 6]", "profile_latency.batches=[1, 128]"), (2, 4, 6)),
    ],
)
def test_it_spans_what_is_timed_and_scored(settings, sizes):
    assert built(settings=settings) == BuildEngine(batches=sizes)


def test_a_recipe_file_that_leaves_them_out_gets_them_too(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(
        "source: {model: net.pt2}\ntarget: a100\nlatency: {profile_latency: {batches: [1, 24]}}\n"
        "steps: [export, {build_engine: {tf32: true}}, {compile: {backend: tensorrt}}]\n"
    )
    recipe = recipe_for(Settings(), file, {})
    assert recipe.steps[1].options == {"tf32": True, "batches": [1, 24, 32]}
    assert recipe_for(Settings(), "net.pt2", {}).steps == recipe_for(Settings(), "net.pt2", {"settings": ()}).steps


def test_what_is_no_batch_size_is_left_to_the_step_that_refuses_it():
    assert built(settings=("profile_latency.batches=many",)) == BuildEngine()
    assert built(settings=("check_accuracy.batch=-1",)) == BuildEngine(batches=(1, 8, 8))
