"""A second artifact in a package answers where the first one fails; one that is another model is refused."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from serving import run_client
from tiny_artifacts import make, samples

from mlpack.api.package import package
from mlpack.core.model import TensorSpec
from mlpack.errors import UsageError

TABLE = np.arange(40, dtype=np.float32).reshape(10, 4)


def looking_up(table, name="embedding", axis_dims=4):
    """Rows of a table; ids beyond it are what the model fails on."""
    inputs = [TensorSpec(name="ids", dtype="int64", dims=("batch",))]
    outputs = [TensorSpec(name=name, dtype="float32", dims=("batch", axis_dims))]
    nodes = [helper.make_node("Gather", ["table", "ids"], [name])]
    graph = helper.make_graph(
        nodes,
        "lookup",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch"])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", axis_dims])],
        [numpy_helper.from_array(table, "table")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return {"built": (model, inputs, outputs), "given": {"ids": np.arange(6)}}


@pytest.fixture
def both(tmp_path):
    """A package of `tiny-first`, which knows ten ids, with `tiny-second`, which knows a hundred and is changed."""

    def build(second=None, first_changes=None, **changes):
        store = tmp_path / "store"
        make(store, "first", **looking_up(TABLE), **(first_changes or {}))
        make(store, "second", **(second or looking_up(np.full((100, 4), -1, np.float32))), **changes)
        return package("tiny-first", runtime="fastapi", fallback="tiny-second", store=store, out=tmp_path / "out").path

    return build


def ask(server, *ids):
    content = {"inputs": [{"name": "ids", "datatype": "INT64", "shape": [len(ids)], "data": list(ids)}]}
    raw = json.dumps(content).encode()
    status, headers, answer = server.exchange("POST", "/v2/models/tiny-first/infer", raw)
    return status, headers["X-Answered-By"], json.loads(answer)


def test_the_fallback_answers_what_the_first_fails_on_and_says_so(both, serve):
    folder = both()
    server = serve(folder)
    assert run_client(folder, server.url).returncode == 0
    status, by, answer = ask(server, 3)
    assert (status, by, answer["outputs"][0]["data"]) == (200, None, TABLE[3].tolist())
    assert "parameters" not in answer
    status, by, answer = ask(server, 77)
    assert (status, by, answer["outputs"][0]["data"]) == (200, "tiny-second@1", [-1.0] * 4)
    assert answer["parameters"] == {"answered_by": "tiny-second@1"}
    assert server.metrics()["inference_fallbacks_total"] == 1
    assert ask(server, 777)[0] == 500


def test_a_first_model_that_cannot_be_opened_is_no_reason_not_to_serve(both, serve):
    folder = both()
    damage(folder, "model/model.onnx")
    server = serve(folder)
    status, by, answer = ask(server, 3)
    assert (status, by, answer["outputs"][0]["data"]) == (200, "tiny-second@1", [-1.0] * 4)


def test_the_fallback_may_run_on_another_backend(both, serve):
    folder = both(model__backend="openvino", accuracy__backend="openvino")
    needed = (folder / "requirements.txt").read_text()
    assert "onnxruntime==" in needed
    assert "openvino==" in needed
    status, by, answer = ask(serve(folder), 77)
    assert (status, by, answer["outputs"][0]["data"]) == (200, "tiny-second@1", [-1.0] * 4)


def damage(folder, relative):
    """Another file in a package whose list says that it belongs there: what a library refuses, not what was altered."""
    import hashlib

    (folder / relative).write_bytes(b"no model")
    record = json.loads((folder / "mlpack-package.json").read_text())
    record["files"][relative] = hashlib.sha256(b"no model").hexdigest()
    (folder / "mlpack-package.json").write_text(json.dumps(record))


def test_the_files_and_settings_of_both_are_in_the_package(both):
    folder = both()
    described = json.loads((folder / "model.json").read_text())
    assert described["fallback"]["entry"] == "fallback/model.onnx"
    assert (folder / "fallback" / "model.onnx").is_file()
    assert "COPY fallback fallback" in (folder / "Dockerfile").read_text()
    assert "tiny-second@1 answers where this model fails" in (folder / "README.md").read_text()


@pytest.mark.parametrize(
    ("second", "changes", "said"),
    [
        (looking_up(TABLE, name="vectors"), {}, "have other outputs"),
        (looking_up(TABLE[:, :3], axis_dims=3), {}, "have other outputs"),
        ({"given": samples("text")}, {}, "have other inputs"),
        (None, {"accuracy__batch_dependent": True}, "share batches"),
        (None, {"accuracy__backend": "openvino"}, "scored on openvino"),
        (None, {"target": {"name": "a100", "kind": "cuda"}}, "is for a GPU"),
        (None, {"status": "candidate"}, "tiny-second@1 is a candidate"),
        (None, {"environment__libraries": {"onnxruntime": "1.2.3"}}, "with 1.2.3: one server has one of them"),
    ],
)
def test_another_kind_of_model_is_refused(both, second, changes, said):
    if second and "built" not in second:
        from tiny_artifacts import graph

        second = {**second, "built": graph("text")}
    with pytest.raises(UsageError, match=said):
        both(second, **changes)


def test_an_artifact_is_not_its_own_fallback(tmp_path):
    make(tmp_path / "store", "mlp")
    with pytest.raises(UsageError, match="cannot be its own fallback"):
        package("tiny-mlp", runtime="fastapi", fallback="tiny-mlp", store=tmp_path / "store", out=tmp_path / "out")
