"""`--into` with a model and its steps: all of them beside what is there, and from one version to another as one."""

from __future__ import annotations

import shutil

import pytest
from google.protobuf import text_format
from raw_artifacts import make_raw
from tiny_artifacts import make
from tritonclient.grpc import model_config_pb2

from mlpack.errors import UsageError
from mlpack.runtimes.triton_repository import TritonRepository

STEPS = ("tiny-reviews", "tiny-reviews_finish", "tiny-reviews_prepare")
ENSEMBLE = "tiny-reviews_raw"


def config(place, name):
    text = (place / "models" / name / "config.pbtxt").read_text()
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def served(place):
    """The versions that each model serves, and those that the ensemble asks."""
    found = {name: list(config(place, name).version_policy.specific.versions) for name in (*STEPS, ENSEMBLE)}
    asked = {each.model_version for each in config(place, ENSEMBLE).ensemble_scheduling.step}
    return {str(found[name]) for name in STEPS}, found[ENSEMBLE], asked


@pytest.fixture
def into(cli, place):
    def call(ref, *words):
        return cli("package", ref, "--runtime", "triton", "--into", "models", "--json", *words)

    return call


@pytest.fixture
def two(place):
    for version in (1, 2):
        make_raw(place / "artifacts", "reviews", version=version)


def test_all_members_come_and_change_over_together(two, into, cli, place):
    first = into("tiny-reviews@1")
    assert first.code == 0, first.err
    assert first.document["models"] == [*STEPS, ENSEMBLE], "who asks the others is the last"
    assert (first.document["active"], first.document["pending"]) == ([1], False)
    second = into("tiny-reviews@2")
    assert (second.code, second.document["added"], second.document["active"]) == (0, True, [1])
    assert served(place) == ({"[1]"}, [1], {1}), "copying is no cutover"
    for name in (*STEPS, ENSEMBLE):
        assert (place / "models" / name / "2" / "mlpack-version.json").is_file()
    # Neither the ensemble nor who is still in it meets a version that is gone.
    begun = into("tiny-reviews@2", "--activate")
    assert (begun.document["active"], begun.document["pending"]) == ([1, 2], True)
    assert begun.document["next"][-1].endswith("--activate")
    assert served(place) == ({"[1, 2]"}, [2], {2})
    ended = into("tiny-reviews@2", "--activate")
    assert (ended.document["active"], ended.document["pending"]) == ([2], False)
    assert served(place) == ({"[2]"}, [2], {2})
    # And back.
    told = cli("package", "tiny-reviews@1", "--runtime", "triton", "--into", "models", "--activate").err
    assert f"{ENSEMBLE} asks version 1 from now on" in told
    assert served(place) == ({"[1, 2]"}, [1], {1})
    told = cli("package", "tiny-reviews@1", "--runtime", "triton", "--into", "models", "--activate").err
    assert "tiny-reviews: 1, 2 → 1 (rollback)" in told
    assert served(place) == ({"[1]"}, [1], {1})
    assert not [path for path in place.iterdir() if ".tmp-" in path.name]


def test_a_cutover_that_was_not_ended_can_be_taken_back(two, into, place):
    into("tiny-reviews@1")
    into("tiny-reviews@2", "--activate")
    assert served(place) == ({"[1, 2]"}, [2], {2})
    into("tiny-reviews@1", "--activate")
    assert served(place) == ({"[1, 2]"}, [1], {1})
    into("tiny-reviews@1", "--activate")
    assert served(place) == ({"[1]"}, [1], {1})


@pytest.mark.parametrize("left", range(1, 4))
def test_what_was_interrupted_is_completed_by_the_same_command(two, into, place, left):
    """As after kill -9 between two renames."""
    into("tiny-reviews@1")
    for name in (*STEPS, ENSEMBLE)[left:]:
        shutil.rmtree(place / "models" / name)
    done = into("tiny-reviews@1")
    assert (done.code, done.document["added"]) == (0, True), done.err
    assert served(place) == ({"[1]"}, [1], {1})


def test_an_ensemble_is_no_earlier_there_than_what_it_asks(into, place):
    """A repository that has the model alone, from before it had a pipeline."""
    make_raw(place / "artifacts", "reviews", version=2)
    into("tiny-reviews@2")
    models = place / "models"
    for name in (*STEPS[1:], ENSEMBLE):
        shutil.rmtree(models / name)
    (models / "tiny-reviews" / "2").rename(models / "tiny-reviews" / "1")
    own = models / "tiny-reviews" / "config.pbtxt"
    own.write_text(own.read_text().replace("versions: [ 2 ]", "versions: [ 1 ]"))
    refused = into("tiny-reviews@2")
    assert refused.code == 2
    assert "would ask version 2 of tiny-reviews" in refused.document["error"]["message"]
    assert not (models / ENSEMBLE).exists()
    done = into("tiny-reviews@2", "--activate")
    assert (done.code, done.document["pending"]) == (0, False)
    assert served(place) == ({"[2]"}, [2], {2})


def test_a_version_that_somebody_else_asks_stays(into, place):
    make(place / "artifacts")
    make(place / "artifacts", version=2)
    into("tiny-mlp@1")
    other = place / "models" / "mine"
    other.mkdir()
    text = """name: "mine" platform: "ensemble" ensemble_scheduling { step {
    model_name: "tiny-mlp" model_version: 1 input_map { key: "a" value: "b" } output_map { key: "c" value: "d" } } }"""
    (other / "config.pbtxt").write_text(text)
    refused = into("tiny-mlp@2", "--activate")
    assert refused.code == 2
    assert "mine asks version 1 of tiny-mlp" in refused.document["error"]["message"]
    assert list(config(place, "tiny-mlp").version_policy.specific.versions) == [1]
    # Who asks the latest gets the latest.
    (other / "config.pbtxt").write_text(text.replace("model_version: 1", "model_version: -1"))
    assert into("tiny-mlp@2", "--activate").code == 0


def test_another_pipeline_is_refused_where_clients_would_see_it(into, place):
    make_raw(place / "artifacts", "reviews")
    make_raw(place / "artifacts", "reviews", version=2, accuracy__batch_dependent=True, accuracy__batch=4)
    into("tiny-reviews@1")
    refused = into("tiny-reviews@2")
    assert (refused.code, "max_batch_size" in refused.document["error"]["message"]) == (2, True)


def test_steps_are_compared_but_for_their_versions():
    def text(version=1, value="b"):
        return f"""ensemble_scheduling {{ step {{ model_name: "m" model_version: {version}
          input_map {{ key: "a" value: "{value}" }} }} }}"""

    door = TritonRepository()
    assert door.steps(text(3)) == (("m", 3),)
    assert door.steps('name: "m"') == ()
    assert door.differences(text(), text(2)) == ()
    assert door.differences(text(), text(1, "c")) == ("it asks other models, or these in another way",)
    assert door.kept(text(), text(2)) == ()
    assert door.steps(door.activated(text(), (4,))) == (("m", 4),)
    with pytest.raises(UsageError):
        door.activated(text().replace("model_version: 1", ""), (4,))
