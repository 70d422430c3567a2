"""`--into` a Triton model repository: added beside what is there, served when asked, refused where it cannot be."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import tempfile
from pathlib import Path

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from tiny_artifacts import make
from tritonclient.grpc import model_config_pb2

from mlpack.errors import UsageError
from mlpack.runtimes.triton_repository import TritonRepository

OPENVINO = {"model__backend": "openvino", "accuracy__backend": "openvino"}
SHARED = Path("/dev") / "shm"


def tree(folder):
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_ino, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def served(repository, name="tiny-mlp"):
    text = (repository / name / "config.pbtxt").read_text()
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    return list(config.version_policy.specific.versions)


@pytest.fixture
def into(cli, place):
    def call(ref, *words):
        return cli("package", ref, "--runtime", "triton", "--into", "models", "--json", *words)

    return call


def test_versions_lie_side_by_side_and_copying_is_no_cutover(into, place, cli):
    make(place / "artifacts")
    make(place / "artifacts", version=2)
    repository = place / "models"
    first = into("tiny-mlp@1")
    assert first.code == 0, first.err
    assert (first.document["added"], first.document["active_before"], first.document["active"]) == (True, [], [1])
    before = tree(repository)
    second = into("tiny-mlp@2")
    assert (second.code, second.document["added"], second.document["active"]) == (0, True, [1])
    assert served(repository) == [1]
    after = tree(repository)
    assert before.items() <= after.items(), "nothing that was there is touched"
    new = {path.partition("/")[2] for path in after.keys() - before.keys()}
    assert new == {"2/model.onnx", "2/model.onnx.data", "2/mlpack-version.json"}
    assert second.document["next"] == [f"mlpack package tiny-mlp@2 --runtime triton --into {repository} --activate"]
    told = cli("package", "tiny-mlp@2", "--runtime", "triton", "--into", "models", "--activate").err
    assert "tiny-mlp: 1 → 2" in told
    assert served(repository) == [2]
    back = cli("package", "tiny-mlp@1", "--runtime", "triton", "--into", "models", "--activate")
    assert "tiny-mlp: 2 → 1 (rollback)" in back.err
    assert served(repository) == [1]
    assert not [path for path in place.iterdir() if ".tmp-" in path.name]


def test_what_somebody_set_by_hand_stays(into, place):
    make(place / "artifacts")
    make(place / "artifacts", version=2)
    into("tiny-mlp@1")
    config = place / "models" / "tiny-mlp" / "config.pbtxt"
    mine = config.read_text().replace(
        "max_queue_delay_microseconds: 2000", "max_queue_delay_microseconds: 77  # mine }"
    )
    config.write_text(mine)
    done = into("tiny-mlp@2", "--activate", "--instances", "2")
    assert done.code == 0, done.err
    assert set(done.document["kept"]) == {"dynamic_batching", "instance_group"}
    assert config.read_text() == mine.replace("versions: [ 1 ]", "versions: [ 2 ]")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (OPENVINO, "backend is 'onnxruntime' there and 'python' here"),
        ({"batch": 3}, "max_batch_size is 8 there and 0 here"),
        ({"model__backend_options": {"threads": 1, "graph_optimizations": "off"}}, "executed with other options"),
    ],
)
def test_a_version_that_one_configuration_cannot_serve_is_refused(into, place, changes, said):
    make(place / "artifacts")
    make(place / "artifacts", version=2, **changes)
    into("tiny-mlp@1")
    before = tree(place / "models")
    done = into("tiny-mlp@2", "--activate")
    assert done.code == 2
    assert said in done.document["error"]["message"]
    assert "--name tiny-mlp-2" in done.document["error"]["hint"]
    assert tree(place / "models") == before


def test_another_artifact_under_the_same_version_is_refused(into, place, tmp_path):
    make(place / "artifacts")
    make(place / "artifacts", version=2)
    make(tmp_path / "others", version=2, accuracy__samples=77)
    into("tiny-mlp@1")
    into("tiny-mlp@2")
    assert into("tiny-mlp@2", "--store", str(tmp_path / "others")).code == 5
    (place / "models" / "tiny-mlp" / "2" / "mlpack-version.json").unlink()
    refused = into("tiny-mlp@2", "--activate")
    assert refused.code == 5
    assert "put there by something else" in refused.document["error"]["message"]
    assert served(place / "models") == [1]


def test_without_a_policy_copying_would_be_a_cutover(into, place):
    make(place / "artifacts")
    make(place / "artifacts", version=2)
    into("tiny-mlp@1")
    config = place / "models" / "tiny-mlp" / "config.pbtxt"
    config.write_text(config.read_text().replace("version_policy { specific { versions: [ 1 ] } }", ""))
    before = tree(place / "models")
    refused = into("tiny-mlp@2")
    assert (refused.code, "names no version to serve" in refused.document["error"]["message"]) == (2, True)
    assert tree(place / "models") == before
    assert into("tiny-mlp@2", "--activate").code == 0
    assert served(place / "models") == [2]


def test_an_altered_version_is_not_activated(into, place):
    make(place / "artifacts")
    make(place / "artifacts", version=2)
    into("tiny-mlp@1")
    into("tiny-mlp@2")
    weights = place / "models" / "tiny-mlp" / "2" / "model.onnx.data"
    weights.write_bytes(weights.read_bytes() + b"!")
    refused = into("tiny-mlp@2", "--activate")
    assert (refused.code, str(weights) in refused.document["error"]["message"]) == (5, True)
    assert served(place / "models") == [1]


@pytest.mark.parametrize(
    "words",
    [("--access", "token"), ("--rate-limit", "3"), ("--cache", "redis"), ("--timeout-ms", "5"), ("--traces", "otlp"),
     ("--fallback", "nosuch"), ("--engine-fallback", "onnxruntime"), ("--cache-mb", "1"), ("--build",)],
)  # fmt: skip
def test_options_that_mean_nothing_in_a_repository_are_refused(into, place, words):
    make(place / "artifacts")
    refused = into("tiny-mlp", *words)
    assert (refused.code, words[0] in refused.document["error"]["message"]) == (2, True)
    assert not (place / "models").exists()


def test_the_next_command_can_be_pasted(cli, place):
    make(place / "my store")
    make(place / "my store", version=2)
    words = ("--runtime", "triton", "--into", "my models", "--store", "my store", "--max-batch", "32")
    cli("package", "tiny-mlp@1", *words)
    (command,) = cli("package", "tiny-mlp@2", *words, "--json").document["next"]
    assert cli(*shlex.split(command)[1:]).code == 0
    assert served(place / "my models") == [2]


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs a second file system")
def test_a_link_to_another_file_system_is_followed(into, place):
    make(place / "artifacts")
    mounted = Path(tempfile.mkdtemp(dir=SHARED))
    try:
        (place / "models").symlink_to(mounted / "models")
        (mounted / "models").mkdir()
        done = into("tiny-mlp")
        assert done.code == 0, "beside what the link means there is room on the same file system"
        assert (mounted / "models" / "tiny-mlp" / "1").is_dir()
    finally:
        shutil.rmtree(mounted)


@pytest.mark.parametrize(("number", "code"), [(errno.EXDEV, 3), (errno.ENOTEMPTY, 2)])
def test_what_rename_refuses_is_said_and_leaves_nothing(into, place, monkeypatch, number, code):
    """A repository that is a mount point, and one to which somebody adds the model in the same moment."""
    make(place / "artifacts")

    def refuse(self, target):
        raise OSError(number, os.strerror(number), str(self))

    monkeypatch.setattr(Path, "rename", refuse)
    done = into("tiny-mlp")
    assert done.code == code, done.err
    assert done.document["error"]["hint"]
    assert not (place / "models" / "tiny-mlp").exists()
    assert not [path for path in place.iterdir() if ".tmp-" in path.name]


def test_refusals(into, cli, place):
    stored = make(place / "artifacts")
    make(place / "artifacts", "text", status="candidate", accuracy__verdict="inconclusive")
    assert into("tiny-text").code == 2
    assert into("tiny-mlp", "--k8s").code == 2
    assert into("tiny-mlp", "--out", "x").code == 2
    assert cli("package", "tiny-mlp", "--runtime", "triton", "--activate").code == 2
    other = cli("package", "tiny-mlp", "--runtime", "fastapi", "--into", "models", "--json")
    assert (other.code, "from its own folder" in other.document["error"]["message"]) == (2, True)
    (place / "models").write_text("mine")
    assert into("tiny-mlp").code == 3
    (place / "models").unlink()
    (stored.path / "model" / "model.onnx.data").write_bytes(b"other")
    assert into("tiny-mlp").code == 5
    assert not (place / "models" / "tiny-mlp").exists()
    (place / "models" / "tiny-mlp").mkdir(parents=True)
    for content in (b"no config {", b"\xff\xfe"):
        (place / "models" / "tiny-mlp" / "config.pbtxt").write_bytes(content)
        assert into("tiny-mlp").code == 2


TEXTS = st.lists(
    st.sampled_from(
        [
            'name: "a { b"', "# version_policy { }", 'parameters { key: "x" value { string_value: "}" } }',
            "max_batch_size: 4", "instance_group { count: 2 }",
        ]
    ),
    max_size=6, unique=True,
)  # fmt: skip
POLICIES = st.sampled_from(
    ["", "version_policy { specific { versions: [ 3, 4 ] } }", "version_policy: { latest { num_versions: 2 } }",
     "version_policy {\n  # of { mine\n  all { }\n}"]
)  # fmt: skip


@given(TEXTS, POLICIES, TEXTS, st.integers(1, 99))
def test_activating_changes_the_policy_and_nothing_else(before, policy, after, version):
    lines = [*before, policy, *(line for line in after if line not in before)]
    text = "\n".join(lines)
    door = TritonRepository()
    made = door.activated(text, (version,))
    assert door.active(made) == (version,)
    old, new = (text_format.Parse(each, model_config_pb2.ModelConfig()) for each in (text, made))
    old.ClearField("version_policy")
    new.ClearField("version_policy")
    assert old == new
    assert all(line in made.splitlines() for line in lines if line.startswith("#"))
    assert door.differences(text, made) == ()


def test_what_is_no_config_is_said():
    with pytest.raises(UsageError, match=r"none of Triton's: 1:"):
        TritonRepository().active("what { is }")


def test_types_and_dims_are_compared():
    def text(dims="8", kind="FP32", name="x"):
        return f'max_batch_size: 4 input {{ name: "{name}" data_type: TYPE_{kind} dims: [ {dims} ] }}'

    door = TritonRepository()
    assert door.differences(text(), text(dims="9")) == ("x is FP32 [8] there and FP32 [9] here",)
    assert door.differences(text(), text(kind="INT8")) == ("x is FP32 [8] there and INT8 [8] here",)
    assert door.differences(text(), text(name="y")) == ("inputs are x there and y here",)
    assert door.differences(text("-1"), text("-1")) == ()
