"""The OpenAPI document: it describes every door, real requests fit it, and schemathesis finds nothing."""

from __future__ import annotations

import json
import subprocess
import sys

import jsonschema
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mlpack.core.model import TensorSpec

METHODS = {"get", "post"}


def document(server):
    return json.loads(server.exchange("GET", "/openapi.json")[2])


def inner(found, path="/v2/models/{name}/infer"):
    return found["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]


def test_every_door_is_described_and_every_described_door_is_there(packaged, serve):
    server = serve(packaged("reviews"))
    found = document(server)
    assert len(found["paths"]) == 13
    for path, door in found["paths"].items():
        real = path.replace("{name}", "tiny-reviews").replace("{version}", "1")
        for method in METHODS:
            status, headers, _ = server.exchange(method.upper(), real, b"" if method == "post" else None)
            assert (status == 405) == (method not in door), (method, path)
            if status == 405:
                assert headers["Allow"].lower() in door


@pytest.mark.parametrize("kind", ["mlp", "text", "reviews", "photos"])
def test_golden_requests_fit_the_schema_and_others_do_not(packaged, serve, kind):
    folder = packaged(kind)
    server = serve(folder)
    schema = inner(document(server))
    request = json.loads((folder / "golden" / "request.json").read_text())
    jsonschema.validate(request, schema)
    for change in ({"datatype": "FP64"}, {"name": "x"}, {"shape": [0]}, {"data": ["a"]}):
        wrong = {"inputs": [{**request["inputs"][0], **change}, *request["inputs"][1:]]}
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)
        assert server.ask(f"/v2/models/tiny-{kind}/infer", wrong)[0] == 400


def test_a_token_stands_in_the_schema(packaged, serve):
    token = "correct-horse-battery"
    server = serve(packaged(access="token"), AUTH_TOKEN=token)
    found = json.loads(server.exchange("GET", "/openapi.json", None, {"Authorization": f"Bearer {token}"})[2])
    assert found["security"] == [{"token": []}]
    assert found["paths"]["/v2/health/ready"]["get"]["security"] == []
    assert "401" in found["paths"]["/v2"]["get"]["responses"]


def steady_graph():
    """A model that has an answer for any numbers: it squeezes them before it weighs them."""
    inputs = [TensorSpec(name="features", dtype="float32", dims=("batch", 4))]
    outputs = [TensorSpec(name="logits", dtype="float32", dims=("batch", 3))]
    nodes = [helper.make_node("Tanh", ["features"], ["small"]), helper.make_node("MatMul", ["small", "w"], ["logits"])]
    weights = [numpy_helper.from_array(np.ones((4, 3), np.float32), "w")]
    sides = [[helper.make_tensor_value_info(each.name, TensorProto.FLOAT, each.dims)] for each in inputs + outputs]
    graph = helper.make_graph(nodes, "steady", *sides, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return {"built": (model, inputs, outputs), "given": {"features": np.ones((6, 4), np.float32)}}


@pytest.mark.slow
@pytest.mark.parametrize("door", [[], ["--include-path", "/predict"]], ids=["all doors", "raw samples"])
def test_schemathesis_finds_nothing(packaged, serve, tmp_path, door):
    # Sizes of free dims, which /predict has no part in, are what a schema cannot tie to the length of the data.
    server = serve(packaged("reviews") if door else packaged("steady", changes=steady_graph()), CLIENT_SECONDS="5")
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json", "--max-examples", "10",
        "--seed", "1", "--generation-deterministic", "--no-color", *door,
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout
    assert "No issues found" in done.stdout
    assert server.ask("/v2/health/ready")[0] == 200
