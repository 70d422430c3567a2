"""Raw samples over HTTP, asked of the FastAPI package for real: the same answers as the pipeline gives in process."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from raw_artifacts import LABELS, OTHERS, RAW_KINDS, TEXTS, in_process, make_raw, picture, raw_samples, written
from serving import LAUNCH, run_client, started

from mlpack.api.package import package
from mlpack.measure.clients.v2_http import V2Http
from mlpack.pipeline import Pipeline, PipelineError

KINDS = [kind for kind in RAW_KINDS if kind != "numbers"]


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """A running server per kind of pipeline, each started when it is first asked for."""
    folder = tmp_path_factory.mktemp("raw")
    running = {}
    contexts = []

    def server(kind):
        if kind not in running:
            make_raw(folder / "store", kind)
            made = package(f"tiny-{kind}", runtime="fastapi", store=folder / "store", out=folder / kind).path
            command = [sys.executable, "-I", "-B", "-c", LAUNCH, str(made)]
            contexts.append(started(command, made, {}))
            running[kind] = contexts[-1].__enter__()
        return running[kind]

    yield server
    for context in contexts:
        context.__exit__(None, None, None)


def tensors(raw, **more):
    """Raw samples as a V2 request."""
    return {"inputs": [tensor(name, values) for name, values in raw.items()], **more}


def tensor(name, values, shape=None):
    if isinstance(values[0], bytes):
        data = [base64.b64encode(each).decode() for each in values]
        form = {"parameters": {"content_type": "base64"}}
    else:
        data, form = values, {}
    return {"name": name, "datatype": "BYTES", "shape": shape or [len(values)], "data": data, **form}


def infer(server, request):
    return server.ask(f"/v2/models/tiny-{server.package.name}/infer", request)


def found(answer):
    return {each["name"]: each for each in answer["outputs"]}


def decoded(columns):
    """Rows of native values, from V2 columns where what is no text travels as JSON."""
    return {
        name: [json.loads(each) if name == "ranking" else each for each in column["data"]]
        for name, column in columns.items()
    }


@pytest.mark.parametrize("count", [1, 3, 6])
@pytest.mark.parametrize("kind", ["reviews", "pairs", "photos"])
def test_the_protocol_answers_as_the_pipeline_does_in_process(servers, kind, count):
    server = servers(kind)
    raw = {name: values[:count] for name, values in raw_samples(kind).items()}
    outputs, columns = in_process(server.package, raw)
    status, answer = infer(server, tensors(raw))
    assert status == 200, answer
    assert all(each["shape"] == [count] for each in answer["outputs"])
    got = decoded(found(answer))
    assert list(got) == list(columns)
    for name, values in columns.items():
        assert got[name] == (pytest.approx(values, abs=1e-5) if name in {"score", "margin"} else values)
    wanted = [{"name": "logits"}, {"name": next(iter(columns))}]
    both = found(infer(server, tensors(raw, outputs=wanted))[1])
    assert list(both) == [each["name"] for each in wanted]
    logits = np.array(both["logits"]["data"], np.float32).reshape(both["logits"]["shape"])
    assert np.allclose(logits, outputs["logits"], atol=1e-5)


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_the_plain_door_answers_one_object_per_sample(servers, kind, count):
    server = servers(kind)
    raw = {name: values[:count] for name, values in raw_samples(kind).items()}
    outputs, columns = in_process(server.package, raw)
    rows = written(raw)
    asked = {name: [row[name] for row in rows] for name in raw} if count > 1 else rows[0]
    status, answer = server.ask("/predict", asked)
    assert status == 200, answer
    expected = columns or {"logits": outputs["logits"].tolist()}
    assert [list(each) for each in answer["predictions"]] == [list(expected)] * count
    for row, each in enumerate(answer["predictions"]):
        for name, value in each.items():
            is_number = name in {"score", "margin", "logits"}
            assert value == (pytest.approx(expected[name][row], abs=1e-5) if is_number else expected[name][row])


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "WEBP"])
def test_an_image_file_is_a_request(servers, form):
    server = servers("photos")
    content = picture(3, form)
    _, columns = in_process(server.package, {"image": [content]})
    for kind in (f"image/{form.lower()}", "application/octet-stream"):
        status, answer = server.ask("/predict", content, kind)
        assert status == 200
        assert answer["predictions"][0]["label"] == columns["label"][0]


def test_datatypes_are_those_of_the_golden_answers(servers):
    answer = found(infer(servers("reviews"), tensors({"text": ["fine"]}))[1])
    assert {name: each["datatype"] for name, each in answer.items()} == {"label": "BYTES", "score": "FP32"}
    answer = found(infer(servers("pairs"), tensors({"text": ["fine"], "text_pair": ["bad"]}))[1])
    assert {name: each["datatype"] for name, each in answer.items()} == {
        "best": "INT64", "sure": "BOOL", "margin": "FP32", "ranking": "BYTES", "note": "BYTES",
    }  # fmt: skip
    assert sorted(json.loads(answer["ranking"]["data"][0])) == [0, 1, 2]


def test_metadata_lists_the_raw_side_beside_the_tensors(servers):
    _, reviews = servers("reviews").ask("/v2/models/tiny-reviews")
    assert [each["name"] for each in reviews["inputs"]] == ["input_ids", "mask"]
    assert reviews["raw_inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    assert [each["name"] for each in reviews["raw_outputs"]] == ["label", "score"]
    _, photos = servers("photos").ask("/v2/models/tiny-photos")
    assert photos["raw_inputs"][0]["parameters"] == {"content_type": "base64"}


def test_tensors_are_answered_as_without_a_pipeline(servers):
    """Even where a raw field has an input's name, and a column an output's."""
    server = servers("photos")
    array = Pipeline.load(server.package / "pipeline").prepare({"image": [picture(1)]})["image"]
    given = {"name": "image", "datatype": "FP32", "shape": list(array.shape), "data": array.ravel().tolist()}
    answer = found(infer(server, {"inputs": [given]})[1])
    assert list(answer) == ["logits", "score"]
    assert answer["score"]["data"] == pytest.approx([max(answer["logits"]["data"])])


def test_shape_n_1_and_nested_data_are_the_same(servers):
    server = servers("reviews")
    plain = infer(server, tensors({"text": TEXTS[:2]}))
    assert infer(server, {"inputs": [tensor("text", TEXTS[:2], [2, 1])]}) == plain
    assert infer(server, {"inputs": [tensor("text", [[each] for each in TEXTS[:2]], [2, 1])]}) == plain


GOOD, BAD_IMAGE = picture(0), picture(0)[:60]
BAD = [
    ("reviews", {"text": ["fine", " \n"]}, 422, "sample 2 of 2: 'text' is empty"),
    ("reviews", {"text": [""]}, 422, "'text' is empty"),
    ("reviews", {"text": TEXTS * 2}, 400, "the batch has 12 rows; this server takes at most 8 in one request"),
    ("reviews", {"texts": ["fine"]}, 400, "unknown field 'texts'; a raw sample has 'text'"),
    ("reviews", {"text": [7]}, 400, "'text' of sample 1 is no string"),
    ("reviews", {"text": ["a\ud800"]}, 400, "'text' of sample 1 is no valid Unicode"),
    ("pairs", {"text": ["fine"]}, 400, "'text_pair' is missing; a raw sample has 'text', 'text_pair'"),
    ("pairs", {"text": ["fine"], "text_pair": OTHERS[:2]}, 400, "have different numbers of samples: 1, 2"),
    ("photos", {"image": [GOOD, BAD_IMAGE]}, 422, "sample 2 of 2: the image cannot be decoded"),
    ("photos", {"image": [b"no image at all"]}, 422, "these are not the bytes of an image file"),
    ("photos", {"image": ["%%%"]}, 400, "'image' of sample 1 is no base64"),
    ("photos", {"image": [""]}, 422, "the image cannot be decoded"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "raw", "status", "said"), BAD)
def test_bad_samples_are_refused_with_one_line(servers, kind, raw, status, said):
    server = servers(kind)
    asked = {
        name: [base64.b64encode(each).decode() if isinstance(each, bytes) else each for each in values]
        for name, values in raw.items()
    }
    for got, answer in (infer(server, tensors(raw)), server.ask("/predict", asked)):
        assert (got, set(answer)) == (status, {"error"}), answer
        assert said in answer["error"]
        assert "\n" not in answer["error"]
        assert "0x" not in answer["error"]


PROTOCOL = [
    ({"inputs": [tensor("text", ["a"]), {"name": "mask", "datatype": "INT64", "shape": [1, 1], "data": [1]}]},
     "unknown field 'mask'"),
    ({"inputs": [tensor("text", ["a"], [1, 2])]}, "must have shape [n] or [n, 1]"),
    ({"inputs": [tensor("text", ["a"], [2])]}, "has shape [2], but 1 values"),
    ({"inputs": [{**tensor("text", ["a"]), "data": "a"}]}, "must have its values in a list"),
    ({"inputs": [{**tensor("text", ["a"]), "parameters": {"content_type": "base64"}}]}, "content type 'base64'"),
    ({"inputs": [tensor("text", ["a"])], "outputs": [{"name": "x"}]}, "unknown output 'x'; the model has 'label'"),
    ({"inputs": [tensor("text", ["a"])], "id": 7}, "'id' must be a string"),
]  # fmt: skip


@pytest.mark.parametrize(("request_", "said"), PROTOCOL, ids=[said for _, said in PROTOCOL])
def test_what_the_protocol_does_not_say_is_refused(servers, request_, said):
    status, answer = infer(servers("reviews"), request_)
    assert (status, said in answer["error"]) == (400, True), answer


@pytest.mark.parametrize(
    ("kind", "body", "form", "status", "said"),
    [
        ("reviews", {"text": []}, "application/json", 400, "there are no samples"),
        ("reviews", b"good film", "text/plain", 415, "a body of text/plain is not read here"),
        ("reviews", GOOD, "image/png", 400, "takes no image file but JSON with 'text'"),
        ("photos", GOOD, "application/json", 400, "send an image file with 'Content-Type: image/jpeg'"),
        ("photos", b"", "image/png", 400, "the body is empty"),
        ("pairs", {"text": "a", "text_pair": ["b"]}, "application/json", 400, "all be one value or all be lists"),
    ],
)
def test_the_plain_door_says_what_it_takes(servers, kind, body, form, status, said):
    got, answer = servers(kind).ask("/predict", body, form)
    assert (got, said in answer["error"]) == (status, True), answer


def test_only_one_side(packaged, serve):
    """Nothing before the model: columns are answers to tensors, where they are asked for."""
    server = serve(packaged("numbers"))
    with np.load(server.package / "golden" / "inputs.npz") as arrays:
        given = [
            {"name": name, "datatype": "INT64", "shape": [2, arrays[name].shape[1]], "data": arrays[name][:2].tolist()}
            for name in arrays.files
        ]
    with np.load(server.package / "golden" / "outputs.npz") as arrays:
        expected = [LABELS[at] for at in arrays["logits"][:2].argmax(axis=1)]
    path = "/v2/models/tiny-numbers/infer"
    assert list(found(server.ask(path, {"inputs": given})[1])) == ["logits"]
    asked = server.ask(path, {"inputs": given, "outputs": [{"name": "label"}, {"name": "logits"}]})[1]
    assert found(asked)["label"]["data"] == expected
    status, answer = server.ask("/predict", {"text": "fine"})
    assert (status, answer["error"]) == (400, f"this model takes tensors only: POST {path}")


@pytest.mark.parametrize("kind", KINDS)
def test_the_client_replays_raw_samples(servers, kind):
    server = servers(kind)
    done = run_client(server.package, server.url)
    said = "6 golden requests, 0 differences\n6 raw requests, 0 differences\n"
    assert (done.returncode, done.stdout) == (0, said)


def test_the_client_sees_another_answer(packaged, serve):
    folder = packaged("pairs")
    server = serve(folder)
    path = folder / "golden" / "answers.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["note"] += "!"
    rows[1]["margin"] *= 1.01
    rows[2]["ranking"].reverse()
    rows[3]["best"] += 1
    rows[4]["margin"] *= 1.00001
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    done = run_client(folder, server.url)
    assert done.returncode == 1
    assert done.stdout.endswith("6 raw requests, 4 differences\n")
    assert "raw request 3: output 'ranking' is [" in done.stdout


def test_concurrent_requests_of_different_lengths_get_their_own_answers(servers):
    server = servers("reviews")
    texts = [" ".join(TEXTS[turn % 6].split() * (1 + turn % 5)) for turn in range(60)]
    expected = [in_process(server.package, {"text": [each]})[1] for each in texts]
    before = server.metrics()

    def ask(text):
        return server.ask("/predict", {"text": text})

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(ask, texts))
    for (status, answer), want in zip(answers, expected, strict=True):
        assert status == 200
        assert answer["predictions"][0]["label"] == want["label"][0]
        assert answer["predictions"][0]["score"] == pytest.approx(want["score"][0], abs=1e-5)
    after = server.metrics()
    assert after["inference_batch_rows_sum"] - before["inference_batch_rows_sum"] == 60
    for part in ("preprocess", "prepare", "queue", "compute", "finish", "postprocess"):
        name = f'inference_part_seconds_count{{part="{part}"}}'
        assert after[name] - before[name] == 60, part
    spent = [value for name, value in after.items() if name.startswith("inference_part_seconds_sum")]
    assert sum(spent) < after["inference_request_seconds_sum"]


def test_a_pipelines_time_is_part_of_what_bench_tells(servers):
    server = servers("reviews")
    server.ask("/predict", {"text": "good film " * 20_000})

    async def asked():
        async with V2Http(server.url, 10.0) as client:
            return await client.spent("tiny-reviews")

    spent = asyncio.run(asked())
    sums = {name: value for name, value in server.metrics().items() if name.startswith("inference_part_seconds_sum")}
    parts = {name: sums[f'inference_part_seconds_sum{{part="{name}"}}'] for name in ("preprocess", "prepare", "finish")}
    assert parts["prepare"] > 0.001
    assert spent.seconds["preprocess"] == pytest.approx(parts["preprocess"] + parts["prepare"])
    assert sum(spent.seconds.values()) == pytest.approx(sum(sums.values()))


def test_images_and_long_texts_pass_the_default_limit(servers):
    photo = picture(1, "BMP", (1600, 1200))
    assert len(photo) > 5_000_000
    assert servers("photos").ask("/predict", photo, "image/bmp")[0] == 200
    assert infer(servers("photos"), tensors({"image": [photo] * 3}))[0] == 200
    assert servers("reviews").ask("/predict", {"text": ["good film " * 20_000] * 8})[0] == 200


def test_the_body_limit_holds_at_the_plain_door(packaged, serve):
    server = serve(packaged("reviews"), MAX_BODY_BYTES="1000")
    assert server.ask("/predict", {"text": "a" * 2000}) == (413, {"error": "the body is larger than 1000 bytes"})


def test_sigterm_answers_raw_requests_that_were_let_in(packaged, serve):
    folder = packaged("reviews", max_batch=1)
    server = serve(folder)
    slow = json.dumps({"text": "good film " * 20_000}).encode()

    def ask(_):
        return server.ask("/predict", slow)[0]

    with ThreadPoolExecutor(12) as pool:
        asked = [pool.submit(ask, turn) for turn in range(12)]
        while server.metrics()["inference_queue_depth"] < 6:
            time.sleep(0.005)
            assert not all(each.done() for each in asked), "nothing was waiting: the test shows nothing"
        server.process.send_signal(signal.SIGTERM)
        answers = [each.result() for each in asked]
    assert answers.count(200) >= 7
    assert set(answers) <= {200, 503}
    assert server.process.wait(20) in {0, -signal.SIGTERM}


def test_an_altered_pipeline_is_not_served(packaged):
    import subprocess

    folder = packaged("reviews")
    path = folder / "pipeline" / "tokenizer.json"
    path.write_text(path.read_text().replace("good", "evil"))
    command = [sys.executable, "-I", "-B", "-c", LAUNCH, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 5
    assert done.stderr.startswith("error: pipeline/tokenizer.json was altered")


def test_the_pipeline_code_is_copied_as_it_is(packaged):
    import mlpack.pipeline

    folder = packaged("reviews")
    for path in Path(mlpack.pipeline.__file__).parent.glob("*.py"):
        assert (folder / "server" / "pipeline" / path.name).read_bytes() == path.read_bytes()
    pins = [line.partition("==")[0] for line in (folder / "requirements.txt").read_text().splitlines()[1:]]
    assert {"pyyaml", "tokenizers"} < set(pins)
    assert "pillow" not in pins
    assert "COPY pipeline pipeline" in (folder / "Dockerfile").read_text()
    assert "/predict" in (folder / "README.md").read_text()


ODD = st.text(st.characters(exclude_categories=()), max_size=200)


@settings(max_examples=150)
@given(st.lists(ODD, min_size=1, max_size=4))
@example(["\x00"])
@example(["\x00\x01\x02", "good"])
@example(["\u2028good\u2029"])
@example(["\u202egood", "ﷺ" * 500])
@example(["👩‍👩‍👧‍👦 film" * 3000])
@example(["a" * 100_000])
@example(["good\ud83d"])
@example(["\u3000"])
def test_any_text_is_answered_as_in_process_or_refused_with_words(servers, texts):
    server = servers("reviews")
    status, answer = server.ask("/predict", {"text": texts})
    try:
        for each in texts:
            each.encode()
        _, columns = in_process(server.package, {"text": texts})
    except (PipelineError, UnicodeEncodeError):
        assert status in {400, 422}
        assert answer["error"]
    else:
        assert status == 200, answer
        assert [each["label"] for each in answer["predictions"]] == columns["label"]
