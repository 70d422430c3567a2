"""Texts from a table and images from a folder, through the whole job: what was prepared once is prepared the same."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest

import mlpack
from mlpack.errors import DataError, ModelError, UsageError

sys.path.insert(0, str(Path(__file__).parent.parent / "datasets"))
sys.path.insert(0, str(Path(__file__).parent.parent / "runtimes"))

from raw_files import images, texts, tokenizer, write_table
from serving import run_client, serve

__all__ = ["serve"]

pytestmark = pytest.mark.slow

QUICK = ("profile_latency.launches=2", "profile_latency.seconds=0.02", "profile_latency.batches=[1]")
# Counts "good" (4) and "bad" (5): right on every text, whatever its length.
TEXT_MODEL = """
import torch

class Counter(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scores = torch.nn.Embedding(15, 8)
        self.head = torch.nn.Linear(8, 2)
        weight = torch.randn(15, 8, generator=torch.Generator().manual_seed(0)) * 0.01
        weight[4, 0], weight[5, 0] = 1.0, -1.0
        self.scores.weight.data = weight
        self.head.weight.data = torch.zeros(2, 8)
        self.head.weight.data[:, 0] = torch.tensor([-1.0, 1.0])
        self.head.bias.data = torch.tensor([0.5, -0.5])

    def forward(self, input_ids, attention_mask):
        mask = attention_mask.unsqueeze(-1).float()
        return self.head((self.scores(input_ids) * mask).sum(1))

def model():
    return Counter()
"""
IMAGE_MODEL = """
import torch

class Bright(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Conv2d(3, 4, 3, padding=1)
        self.last = torch.nn.Linear(4, 2)
        self.first.weight.data = torch.full((4, 3, 3, 3), 1 / 27)
        self.first.bias.data = torch.zeros(4)
        self.last.weight.data = torch.tensor([[-1.0] * 4, [1.0] * 4])
        self.last.bias.data = torch.tensor([1.9, -1.9])

    def forward(self, pixels):
        return self.last(torch.relu(self.first(pixels)).mean((2, 3)))

def model():
    return Bright()
"""


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """An artifact made from texts in a table: the folder that it was made in, where these tests work."""
    folder = tmp_path_factory.mktemp("counted")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        patched.setenv("MLPACK_CACHE", str(folder / "cache"))
        Path("model.py").write_text(TEXT_MODEL)
        tokenizer(folder / "words")
        write_table(folder / "reviews.csv", [{"n": at, **row} for at, row in enumerate(texts(400))])
        yield mlpack.optimize(
            "model.py:model", data="reviews.csv", tokenizer="words", columns="text=text,label=label",
            settings=QUICK, max_drop="5%", name="counted",
        ).stored  # fmt: skip


def test_a_build_takes_the_pipeline_of_the_artifact(counted, tmp_path, monkeypatch):
    place = Path.cwd()
    monkeypatch.chdir(tmp_path)
    given = {"model": f"{place}/model.py:model", "data": place / "reviews.csv", "backend": "onnxruntime"}
    built = mlpack.build(str(counted.path), store="store", **given).stored
    assert built.artifact.pipeline == counted.artifact.pipeline
    assert built.artifact.accuracy.part == counted.artifact.accuracy.part
    assert (built.artifact.version, built.artifact.parent.digest) == (1, counted.artifact.digest)
    steps = "pipeline/pipeline.yaml"
    assert (built.path / steps).read_bytes() == (counted.path / steps).read_bytes()
    assert len((built.path / "golden" / "answers.jsonl").read_text().splitlines()) == 8
    assert next(each.name for each in built.artifact.components) == "preprocess"


def test_texts_are_optimized_predicted_and_judged_again(counted):
    this = counted.artifact
    assert this.accuracy.metric == "top1"
    assert this.accuracy.baseline == 1.0
    assert this.accuracy.verified_on == "labels"
    assert [spec.dims for spec in this.model.inputs] == [("batch", "length")] * 2
    assert this.pipeline is not None
    assert (this.pipeline.preprocess, this.pipeline.postprocess) == ("text", "labels")
    assert this.pipeline.labels == ("down", "up")
    assert {each.group for each in this.accuracy.groups} >= {"up to 16 tokens", "17 to 32 tokens"}
    names = [each.name for each in this.components]
    assert (names[0], names[-1]) == ("preprocess", "postprocess")
    assert sum(each.share for each in this.components) == pytest.approx(1)

    done = mlpack.predict("counted", data="reviews.csv", out="out.csv")
    assert done.samples == 400
    with Path("out.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    with Path("reviews.csv").open(newline="") as stream:
        given = list(csv.DictReader(stream))
    assert list(rows[0]) == ["text", "label", "score"]
    assert [row["text"] for row in rows] == [row["text"] for row in given]
    assert [row["label"] for row in rows] == [row["label"] for row in given]
    assert all(0.5 <= float(row["score"]) <= 1 for row in rows)

    # Without labels, in another form and under another name, the answers are the same.
    write_table(Path("more.jsonl"), [{"review": row["text"]} for row in given[:50]])
    mlpack.predict("counted", data="more.jsonl", columns="text=review", out="more.jsonl.jsonl")
    more = [json.loads(line) for line in Path("more.jsonl.jsonl").read_text().splitlines()]
    assert [row["label"] for row in more] == [row["label"] for row in given[:50]]
    gated = mlpack.gate("counted", against="counted", data="reviews.csv", latency=False)
    assert {each.verdict for each in gated.checks} == {"pass"}


def test_golden_samples_are_raw_and_answered(counted):
    golden = counted.path / "golden"
    raw = [json.loads(line) for line in (golden / "raw.jsonl").read_text().splitlines()]
    answers = [json.loads(line) for line in (golden / "answers.jsonl").read_text().splitlines()]
    outputs = np.load(golden / "outputs.npz")
    assert len(raw) == len(answers) == len(next(iter(outputs.values()))) == counted.artifact.golden["samples"]
    for sample, answer in zip(raw, answers, strict=True):
        words = sample["text"].split()
        assert answer["label"] == ("up" if words.count("good") > words.count("bad") else "down")
    assert set(counted.artifact.files) >= {"pipeline/pipeline.yaml", "pipeline/tokenizer.json", "golden/raw.jsonl"}


def test_a_server_answers_raw_texts_as_predict_does(counted, serve):
    mlpack.predict("counted", data="reviews.csv", out="served.jsonl", force=True)
    rows = [json.loads(line) for line in Path("served.jsonl").read_text().splitlines()]
    server = serve(mlpack.package("counted", runtime="fastapi").path)
    status, answer = server.ask("/predict", {"text": [row["text"] for row in rows[:8]]})
    assert status == 200, answer
    for row, told in zip(rows, answer["predictions"], strict=False):
        assert told["label"] == row["label"]
        assert told["score"] == pytest.approx(row["score"], abs=0.01)
    client = run_client(server.package, server.url)
    assert client.returncode == 0, client.stdout


def test_an_unchanged_run_is_seen_and_another_length_is_not(counted):
    told = {"data": "reviews.csv", "tokenizer": "words", "settings": QUICK, "max_drop": "5%", "name": "counted"}
    assert mlpack.optimize("model.py:model", columns="text=text,label=label", **told).unchanged
    with pytest.warns(UserWarning, match="of 400 texts are longer than 16 tokens and are cut there"):
        again = mlpack.optimize("model.py:model", columns="text=text,label=label", max_length=16, **told)
    assert not again.unchanged
    assert again.stored.artifact.pipeline.digest != counted.artifact.pipeline.digest
    # Each prepares the same samples its own way: what is cut off is missed.
    gated = mlpack.gate("counted@2", against="counted@1", data="reviews.csv", latency=False)
    assert gated.verdict == "fail", gated.checks
    assert mlpack.gate("counted@1", against="counted@1", data="reviews.csv", latency=False).verdict == "pass"


def test_a_function_comes_after_the_model(counted):
    Path("after.py").write_text(
        "def stars(outputs):\n"
        "    (scores,) = outputs.values()\n"
        "    return {'stars': 5 if scores[1] > scores[0] else 1}\n"
        "stars.columns = ('stars',)\n"
    )
    done = mlpack.optimize(
        "model.py:model", data="reviews.csv", tokenizer="words", settings=QUICK, max_drop="5%", name="stars",
        postprocess="after.py:stars",
    )  # fmt: skip
    Path("after.py").unlink()
    mlpack.predict("stars", data="reviews.csv", out="stars.csv")
    with Path("stars.csv").open(newline="") as stream:
        assert {row["stars"] for row in csv.DictReader(stream)} == {"1", "5"}
    assert done.stored.artifact.pipeline.postprocess == "python"


def test_images_are_optimized_predicted_and_served(place, serve):
    Path("model.py").write_text(IMAGE_MODEL)
    images(place / "pictures", count=120)
    Path("before.yaml").write_text("resize: [16, 16]\n")
    stored = mlpack.optimize(
        "model.py:model", data="pictures", preprocess="before.yaml", settings=QUICK, max_drop="5%", name="bright"
    ).stored
    this = stored.artifact
    assert this.accuracy.baseline == 1.0
    assert [(spec.name, spec.dims) for spec in this.model.inputs] == [("pixels", ("batch", 3, 16, 16))]
    done = mlpack.predict("bright", data="pictures", out="out.jsonl")
    assert done.columns == ("label", "score")
    rows = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert len(rows) == 120
    assert all(row["file"].startswith(f"{row['label']}/") for row in rows)
    server = serve(mlpack.package("bright", runtime="fastapi").path)
    for row in rows[::40]:
        status, answer = server.ask("/predict", (place / "pictures" / row["file"]).read_bytes(), "image/png")
        assert status == 200, answer
        assert answer["predictions"] == [{"label": row["label"], "score": pytest.approx(row["score"], abs=0.01)}]
    (place / "pictures" / "dark" / "000.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"dark/000\.png"):
        mlpack.predict("bright", data="pictures", out="again.jsonl")
    with pytest.warns(UserWarning, match="samples that cannot be used are left out: 1"):
        assert mlpack.predict("bright", data="pictures", out="again.jsonl", skip_bad=1).samples == 119


def test_a_function_prepares_images(place):
    Path("model.py").write_text(IMAGE_MODEL)
    images(place / "pictures", count=120)
    Path("before.py").write_text(
        "import numpy as np\n"
        "def small(image):\n"
        "    return np.asarray(image.convert('RGB').resize((16, 16)), dtype='float32').transpose(2, 0, 1) / 255\n"
    )
    stored = mlpack.optimize(
        "model.py:model", data="pictures", preprocess="before.py:small", settings=QUICK, max_drop="5%", name="bright"
    ).stored
    assert stored.artifact.pipeline.preprocess == "python"
    Path("before.py").unlink()
    mlpack.predict("bright", data="pictures", out="out.csv")
    with Path("out.csv").open(newline="") as stream:
        assert all(row["file"].startswith(f"{row['label']}/") for row in csv.DictReader(stream))


def test_what_does_not_go_together(counted):
    with pytest.raises(UsageError, match=r"no \.npz, \.csv or \.jsonl"):
        mlpack.predict("counted", data="reviews.csv", out="out.txt")
    with pytest.raises(UsageError, match="both say what comes before the model"):
        mlpack.optimize("model.py:model", data="reviews.csv", tokenizer="words", preprocess="imagenet")
    with pytest.raises(DataError, match="holds texts"):
        mlpack.optimize("model.py:model", data="reviews.csv")
    with pytest.raises(DataError, match=r"no tokenizer\.json"):
        mlpack.optimize("model.py:model", data="reviews.csv", tokenizer=".")
    with pytest.raises(UsageError, match="imagenett is no preset") as error:
        mlpack.optimize("model.py:model", data="reviews.csv", preprocess="imagenett")
    assert error.value.hint == "did you mean imagenet?"
    with pytest.raises(DataError, match=r"holds texts: .*, but imagenet prepares images"):
        mlpack.optimize("model.py:model", data="reviews.csv", preprocess="imagenet")
    with pytest.raises(UsageError, match="is not name=column"):
        mlpack.optimize("model.py:model", data="reviews.csv", tokenizer="words", columns="text")


def test_names_of_classes_that_are_not_as_many_as_the_model_has(counted):
    write_table(Path("one.csv"), [row for row in texts(400) if row["label"] == "up"])
    told = {"data": "one.csv", "tokenizer": "words", "settings": QUICK, "name": "one"}
    with (
        pytest.warns(UserWarning, match="every sample has the label 0"),
        pytest.raises(DataError, match=r"names for 1 classes \(up, …\), but the model's output .* has 2") as error,
    ):
        mlpack.optimize("model.py:model", **told)
    assert "--labels" in error.value.hint
    with pytest.raises(UsageError, match="names 'up' twice"):
        mlpack.optimize("model.py:model", labels="up,up", **told)
    with pytest.raises(DataError, match="has the class 'up', which the model does not have: it has no, yes"):
        mlpack.optimize("model.py:model", labels="no,yes", **told)


def test_a_tokenizer_with_more_words_than_the_model_has(place):
    """Ids beyond the embedding: one line that names the model's refusal, not a traceback."""
    Path("model.py").write_text(TEXT_MODEL.replace("15, 8", "6, 8"))
    tokenizer(place / "words")
    write_table(place / "reviews.csv", texts(100))
    with pytest.raises(ModelError) as error:
        mlpack.optimize("model.py:model", data="reviews.csv", tokenizer="words", settings=QUICK)
    assert error.value.message.endswith("but the model's largest embedding has 6 entries")
    assert error.value.hint.startswith("give the tokenizer")
