"""Raw samples in the Triton package: configurations as kept, without loose ends, and answered by a real Triton."""

from __future__ import annotations

import base64
import contextlib
import json
import os
from pathlib import Path

import pytest
from google.protobuf import text_format
from other_servers import triton_options
from raw_artifacts import TEXTS, in_process, make_raw, picture
from serving import Running, run_client
from tritonclient.grpc import model_config_pb2

import mlpack.pipeline
from mlpack.api.package import package
from mlpack.core.runtime import PackageOptions
from mlpack.runtimes import RUNTIMES

GOLDEN = Path(__file__).parent / "golden"
OPENVINO = {"model__backend": "openvino", "accuracy__backend": "openvino"}
CASES = {
    "reviews": ({}, {"max_batch": 8, "instances": 2}),
    "pairs": ({}, {}),
    "photos": (OPENVINO, {}),
    "numbers": ({}, {}),
    "plain": ({"accuracy__batch_dependent": True, "accuracy__batch": 4}, {}),
}
STEPS = {"reviews": ["prepare", "", "finish"], "pairs": ["prepare", "", "finish"], "photos": ["prepare", "", "finish"],
         "numbers": ["", "finish"], "plain": ["prepare", ""]}  # fmt: skip


def build(folder, kind):
    changes, options = CASES[kind]
    stored = make_raw(folder, kind, **changes)
    stored = stored.model_copy(update={"artifact": stored.artifact.model_copy(update={"digest": "d" * 64})})
    return stored, dict(RUNTIMES["triton"].layout(stored, PackageOptions(**options)))


def configs(layout):
    """Every config.pbtxt by its model's name."""
    found = {}
    for path, content in layout.items():
        if path.endswith("/config.pbtxt"):
            parsed = text_format.Parse(content, model_config_pb2.ModelConfig())
            assert parsed.name == Path(path).parent.name
            found[parsed.name] = parsed
    return found


@pytest.mark.parametrize("kind", CASES)
def test_the_configs_are_the_kept_examples(tmp_path, kind):
    _, layout = build(tmp_path, kind)
    written = {Path(path).parent.name: text for path, text in layout.items() if path.endswith("/config.pbtxt")}
    text = "".join(f"## {name}\n{content}\n" for name, content in sorted(written.items()) if name != f"tiny-{kind}")
    path = GOLDEN / f"raw_{kind}.pbtxt"
    if os.environ.get("MLPACK_WRITE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("kind", CASES)
def test_the_ensemble_has_no_loose_end(tmp_path, kind):
    _, layout = build(tmp_path, kind)
    found = configs(layout)
    ensemble = found.pop(f"tiny-{kind}_raw")
    steps = ensemble.ensemble_scheduling.step
    assert [each.model_name for each in steps] == [f"tiny-{kind}{'_' * bool(side)}{side}" for side in STEPS[kind]]
    assert set(found) == {each.model_name for each in steps}
    there = {each.name: (each.data_type, list(each.dims)) for each in ensemble.input}
    for step in steps:
        config = found[step.model_name]
        assert config.max_batch_size == ensemble.max_batch_size
        assert (step.model_version, list(config.version_policy.specific.versions)) == (1, [1])
        assert set(step.input_map) == {each.name for each in config.input}
        assert set(step.output_map) == {each.name for each in config.output}
        for each in config.input:
            assert there[step.input_map[each.name]] == (each.data_type, list(each.dims))
        for each in config.output:
            assert step.output_map[each.name] not in there, "two tensors of one name"
            there[step.output_map[each.name]] = (each.data_type, list(each.dims))
    for each in ensemble.output:
        assert there[each.name] == (each.data_type, list(each.dims))


@pytest.mark.parametrize("kind", CASES)
def test_the_model_itself_is_what_it_is_without_a_pipeline(tmp_path, kind):
    stored, layout = build(tmp_path / "with", kind)
    files = {name: digest for name, digest in stored.artifact.files.items() if not name.startswith("pipeline/")}
    bare = stored.model_copy(update={"artifact": stored.artifact.model_copy(update={"files": files})})
    without = RUNTIMES["triton"].layout(bare, PackageOptions(**CASES[kind][1]))
    own = f"model_repository/tiny-{kind}/"
    assert {key: value for key, value in layout.items() if key.startswith(own)} == {
        key: value for key, value in without.items() if key.startswith(own)
    }
    assert {Path(path).parts[1] for path in without if path.startswith("model_repository/")} == {f"tiny-{kind}"}


def test_columns_have_the_datatypes_of_the_golden_answers(tmp_path):
    _, layout = build(tmp_path, "pairs")
    finish = configs(layout)["tiny-pairs_finish"]
    assert {each.name: model_config_pb2.DataType.Name(each.data_type) for each in finish.output} == {
        "best": "TYPE_INT64", "sure": "TYPE_BOOL", "margin": "TYPE_FP32", "ranking": "TYPE_STRING",
        "note": "TYPE_STRING",
    }  # fmt: skip


@pytest.mark.parametrize("kind", CASES)
def test_steps_carry_the_pipeline_as_it_is(tmp_path, kind):
    stored, layout = build(tmp_path, kind)
    code = {path.name for path in Path(mlpack.pipeline.__file__).parent.glob("*.py")}
    for side in filter(None, STEPS[kind]):
        folder = f"model_repository/tiny-{kind}_{side}/1"
        assert {name for name in code if f"{folder}/mlpack_pipeline/{name}" in layout} == code
        assert layout[f"{folder}/pipeline/pipeline.yaml"] == stored.path / "pipeline" / "pipeline.yaml"
        assert layout[f"{folder}/model.py"].name == "step.py"
    # Triton wants the folder of an ensemble's version, and a package is made of files.
    assert f"model_repository/tiny-{kind}_raw/1/README" in layout
    docker = layout["Dockerfile"]
    install = next(line for line in docker.splitlines() if "pip3 install" in line)
    needed = {"photos": {"openvino", "pillow"}, "numbers": set()}.get(kind, {"tokenizers"})
    assert {word.partition("==")[0] for word in install.split("--no-cache-dir ")[1].split()} == {
        "numpy", "pyyaml", *needed,
    }  # fmt: skip


def test_what_to_ask_stands_in_the_readme(tmp_path):
    _, layout = build(tmp_path / "a", "pairs")
    line = next(each for each in layout["README.md"].splitlines() if "Ask with text" in each)
    request = json.loads(line.partition("-d '")[2].partition("'`")[0])
    assert [each["name"] for each in request["inputs"]] == ["text", "text_pair"]
    assert "v2/models/tiny-pairs_raw/infer" in line
    _, layout = build(tmp_path / "b", "photos")
    assert "$(base64 -w0 photo.jpg)" in layout["README.md"]
    assert json.loads(layout["golden/golden.json"])["raw"]["model"] == "tiny-photos_raw"


@contextlib.contextmanager
def triton(kept, folder):
    """A real Triton that serves a package's model repository, its ONNX Runtime backend stood in for."""
    with RUNTIMES["triton"].serve(folder, triton_options(kept), folder.parent / "triton.log") as server:
        yield Running(server.process, folder, server.urls["http"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["reviews", "pairs", "photos"])
def test_a_real_triton_answers_raw_samples(kept, tmp_path, kind):
    stored = make_raw(tmp_path / "store", kind)
    folder = package(f"tiny-{kind}", runtime="triton", store=tmp_path / "store", out=tmp_path / "package").path
    with triton(kept, folder) as server:
        done = run_client(folder, server.url)
        said = "6 golden requests, 0 differences\n6 raw requests, 0 differences\n"
        assert (done.returncode, done.stdout) == (0, said)
        door = f"/v2/models/tiny-{kind}_raw/infer"
        if kind == "reviews":
            raw, sent = {"text": TEXTS[:4]}, TEXTS[:4]
        elif kind == "photos":
            raw = {"image": [picture(turn) for turn in range(4)]}
            sent = [base64.b64encode(each).decode() for each in raw["image"]]
        else:
            return
        (field,) = raw
        _, columns = in_process(stored.path, raw)
        request = {"inputs": [{"name": field, "datatype": "BYTES", "shape": [4, 1], "data": sent}]}
        status, answer = server.ask(door, request)
        found = {each["name"]: each for each in answer["outputs"]}
        assert (status, found["label"]["data"]) == (200, columns["label"])
        assert found["score"]["data"] == pytest.approx(columns["score"], abs=1e-5)
        request["inputs"][0]["data"] = [*sent[:3], " "]
        status, answer = server.ask(door, request)
        assert status == 400
        assert "sample 4: " in answer["error"]
