"""Tensors as bytes: what Triton's own client sends arrives and comes back, and what is cut off is refused."""

from __future__ import annotations

import http.client
import json

import numpy as np
import pytest
import tritonclient.http
from echo_artifact import WIDTH, echo, values
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_artifacts import TEXTS, in_process, picture
from serving import built_package, run_client, serving
from test_v2_protocol import MAX_ROWS, described, tensors, written

from mlpack.runtimes.package_files import DATATYPES as NAMES
from mlpack.runtimes.templates.fastapi.server.description import Tensor
from mlpack.runtimes.templates.fastapi.server.faults import BadRequest
from mlpack.runtimes.templates.fastapi.server.protocol import read_content, tensor_request

HEADER = "Inference-Header-Content-Length"
INFER = "/v2/models/tiny-mlp/infer"


def framed(content: object, tail: bytes) -> tuple[bytes, dict[str, str]]:
    head = json.dumps(content).encode()
    return head + tail, {HEADER.lower(): str(len(head))}


def tensor(array: np.ndarray, datatype: str, size: object = None, **more: object) -> dict[str, object]:
    announced = array.nbytes if size is None else size
    return {"name": "x", "datatype": datatype, "shape": list(array.shape),
            "parameters": {"binary_data_size": announced}, **more}  # fmt: skip


@given(tensors(), st.integers(0, 9))
def test_every_finite_array_arrives_bit_for_bit_wherever_it_starts(drawn, shift):
    datatype, array = drawn
    spec = Tensor("x", datatype, ("batch", *array.shape[1:]))
    body, headers = framed({"inputs": [tensor(array, datatype)], "id": "i" * shift}, array.tobytes())
    read = tensor_request(read_content(body, headers), described(spec))
    assert read.inputs["x"].dtype == array.dtype
    assert read.inputs["x"].flags.aligned
    assert read.inputs["x"].tobytes() == array.tobytes()


X = np.arange(6, dtype=np.float32).reshape(3, 2)
WRONG = {
    "cut off": (tensor(X, "FP32"), X.tobytes()[:-1], "ends 1 bytes before the binary data of input 'x' does"),
    "too long": (tensor(X, "FP32"), X.tobytes() + b"!", "1 bytes follow the binary data"),
    "half a value": (tensor(X, "FP32", 23), X.tobytes()[:-1], "23 bytes of binary data, FP32 of shape [3, 2] has 24"),
    "another shape": (tensor(X[:2], "FP32", 24), X.tobytes(), "FP32 of shape [2, 2] has 16"),
    "a negative size": (tensor(X, "FP32", -24), X.tobytes(), "must be a whole number of bytes"),
    "no size": (tensor(X, "FP32", "24"), X.tobytes(), "must be a whole number of bytes"),
    "true": (tensor(X, "FP32", True), b"!", "must be a whole number of bytes"),
    "both": (tensor(X, "FP32", data=[1.0] * 6), X.tobytes(), "both 'data' and a binary_data_size"),
    "nan": (tensor(X, "FP32"), np.full(6, np.nan, np.float32).tobytes(), "NaN or infinity"),
    "infinity": (tensor(X, "FP32"), np.full(6, np.inf, np.float32).tobytes(), "NaN or infinity"),
    "parameters": ({**tensor(X, "FP32"), "parameters": [24]}, b"", "parameters of 'x' must be an object"),
    "shared memory": (
        {**tensor(X, "FP32"), "parameters": {"shared_memory_region": "a"}}, b"", "which this server does not have",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_wrong_sizes_are_refused_with_words(what):
    given_, tail, said = WRONG[what]
    with pytest.raises(BadRequest) as caught:
        tensor_request(read_content(*framed({"inputs": [given_]}, tail)), described(Tensor("x", "FP32", ("batch", 2))))
    assert said in str(caught.value)


def test_bytes_other_than_0_and_1_are_no_booleans():
    body, headers = framed({"inputs": [tensor(np.zeros((1, 2), bool), "BOOL")]}, b"\x01\x02")
    with pytest.raises(BadRequest, match="other than 0 and 1"):
        tensor_request(read_content(body, headers), described(Tensor("x", "BOOL", ("batch", 2))))


@settings(max_examples=300)
@given(st.binary(max_size=80), st.text(alphabet="0123456789-+. ", max_size=4))
def test_any_bytes_behind_any_header_are_read_or_refused_with_words(tail, header):
    model = described(Tensor("x", "FP32", ("batch", 2)))
    head = written(np.zeros((1, 2)), "FP32")
    for body in (head + tail, tail):
        try:
            read = tensor_request(read_content(body, {HEADER.lower(): header}), model)
        except BadRequest as error:
            said = str(error)
        else:
            said = "read"
            assert (len(read.inputs["x"]), header) == (1, str(len(head)))
        assert said


def client(server):
    return tritonclient.http.InferenceServerClient(server.url.removeprefix("http://"))


def inputs(arrays, *, binary):
    made = []
    for name, array in arrays.items():
        each = tritonclient.http.InferInput(name, list(array.shape), NAMES[array.dtype.name])
        each.set_data_from_numpy(array, binary_data=binary)
        made.append(each)
    return made


@pytest.fixture(scope="module")
def echoing(tmp_path_factory):
    """One server for the tests that change nothing."""
    with serving(built_package(tmp_path_factory.mktemp("echo"), "echo", changes=echo())) as server:
        yield server


@pytest.fixture(scope="module")
def reading(tmp_path_factory):
    """The same for texts."""
    with serving(built_package(tmp_path_factory.mktemp("texts"), "reviews")) as server:
        yield server


def asked(each, *, binary):
    return tritonclient.http.InferRequestedOutput(each, binary_data=binary)


@pytest.mark.parametrize("sent", [True, False], ids=["binary", "json"])
@pytest.mark.parametrize("wanted", [True, False], ids=["to binary", "to json"])
def test_tritons_client_gets_back_every_datatype(echoing, sent, wanted):
    arrays = {f"in_{dtype}": values(dtype, 3) for dtype in NAMES if sent or dtype != "float16"}
    if not sent:
        # This client refuses to write FP16 as JSON.
        arrays["in_float16"] = values("float16", 3)
    given_ = inputs({name: array for name, array in arrays.items() if name != "in_float16"}, binary=sent)
    given_ += inputs({"in_float16": arrays["in_float16"]}, binary=True)
    outputs = [asked(f"out_{dtype}", binary=wanted) for dtype in NAMES]
    answer = client(echoing).infer("tiny-echo", given_, outputs=outputs)
    for dtype in NAMES:
        got = answer.as_numpy(f"out_{dtype}")
        assert got.dtype == np.dtype(dtype)
        assert got.tobytes() == arrays[f"in_{dtype}"].tobytes(), dtype


def test_without_outputs_tritons_client_asks_for_all_in_binary(echoing):
    arrays = {f"in_{dtype}": values(dtype, 1) for dtype in NAMES}
    answer = client(echoing).infer("tiny-echo", inputs(arrays, binary=True), request_id="a")
    assert answer.get_response()["id"] == "a"
    assert all("data" not in each for each in answer.get_response()["outputs"])
    assert np.array_equal(answer.as_numpy("out_uint64"), arrays["in_uint64"])


def test_bytes_carry_the_nan_that_json_cannot(packaged, serve):
    # The largest float in each weighed sum: the model's answer is infinite.
    server = serve(packaged())
    huge = {"features": np.full((1, 8), 3e38, np.float32)}
    answer = client(server).infer("tiny-mlp", inputs(huge, binary=True), outputs=[asked("logits", binary=True)])
    assert not np.isfinite(answer.as_numpy("logits")).all()
    with pytest.raises(tritonclient.http.InferenceServerException, match="binary data can carry it"):
        client(server).infer("tiny-mlp", inputs(huge, binary=True), outputs=[asked("logits", binary=False)])


def test_the_packages_client_and_the_metadata_speak_of_it(echoing):
    assert echoing.ask("/v2")[1]["extensions"] == ["binary_tensor_data"]
    done = run_client(echoing.package, echoing.url)
    assert (done.returncode, done.stdout) == (0, "6 golden requests, 0 differences\n")


@pytest.mark.parametrize(
    ("head", "said"),
    [("99999", "must be the length of the JSON"), ("0", "must be the length"), ("x", "must be the length")],
)
def test_a_header_that_lies_is_refused_and_the_server_lives_on(echoing, head, said):
    connection = http.client.HTTPConnection(echoing.url.removeprefix("http://"), timeout=300)
    connection.request("POST", "/v2/models/tiny-echo/infer", b"{}", {HEADER: head})
    answer = connection.getresponse()
    assert (answer.status, said in json.load(answer)["error"]) == (400, True)
    connection.close()
    assert echoing.ask("/v2/health/ready")[0] == 200


def bytes_input(name, samples):
    each = tritonclient.http.InferInput(name, [len(samples), 1], "BYTES")
    each.set_data_from_numpy(np.array(samples, dtype=object).reshape(-1, 1), binary_data=True)
    return each


def test_texts_and_image_files_travel_as_bytes(packaged, serve, tmp_path):
    photos = [picture(turn) for turn in range(3)]
    for kind, field, samples in (("reviews", "text", TEXTS[:3]), ("photos", "image", photos)):
        server = serve(packaged(kind))
        raw = [each.encode() for each in samples] if field == "text" else samples
        _, columns = in_process(tmp_path / "store" / f"tiny-{kind}" / "1", {field: samples})
        for wanted in (True, False):
            outputs = [asked(name, binary=wanted) for name in ("label", "score")]
            answer = client(server).infer(f"tiny-{kind}", [bytes_input(field, raw)], outputs=outputs)
            labels = [each.decode() if isinstance(each, bytes) else each for each in answer.as_numpy("label")]
            assert labels == columns["label"]
            assert answer.as_numpy("score") == pytest.approx(columns["score"], abs=1e-4)


@pytest.mark.parametrize(
    ("tail", "said"),
    [
        (b"\x05\0\0\0good", "is cut off"),
        (b"\x04\0\0\0good\x04\0", "is cut off"),
        (b"\x04\0\0\0good\x04\0\0\0fine", "has more than 1 values"),
        (b"", "has 0 values"),
        (b"\x02\0\0\0\xff\xfe", "is no UTF-8"),
    ],
)
def test_bytes_that_are_no_texts_are_refused(reading, tail, said):
    given_ = {"name": "text", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(tail)}}
    body, headers = framed({"inputs": [given_]}, tail)
    connection = http.client.HTTPConnection(reading.url.removeprefix("http://"), timeout=300)
    connection.request("POST", "/v2/models/tiny-reviews/infer", body, headers)
    answer = connection.getresponse()
    assert (answer.status, said in json.load(answer)["error"]) == (400, True)
    connection.close()


def test_the_limits_of_rows_and_width_hold_for_bytes_too():
    spec = Tensor("x", "FP32", ("batch", WIDTH))
    many = np.zeros((MAX_ROWS + 1, WIDTH), np.float32)
    with pytest.raises(BadRequest, match=f"at most {MAX_ROWS} in one request"):
        tensor_request(read_content(*framed({"inputs": [tensor(many, "FP32")]}, many.tobytes())), described(spec))
