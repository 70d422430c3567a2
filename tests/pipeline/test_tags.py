"""Tags: words of the text with their labels, as transformers' own pipeline finds them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

# Test folders are no packages.
sys.path.insert(0, str(Path(__file__).parent.parent / "sources"))

from tokens_of import pipeline

from mlpack.pipeline import Pipeline, PipelineError

LABELS = ["O", "B-PER", "B-LOC"]
TAGS = {"kind": "tags", "output": "logits", "labels": LABELS}


@pytest.fixture(scope="module")
def tags(tmp_path_factory):
    return pipeline(tmp_path_factory.mktemp("tags"), TAGS)


def scores(pipeline, texts, label_of):
    """Logits that give each token the label that `label_of(row, place)` says."""
    made = pipeline.prepare({"text": texts})["input_ids"]
    logits = np.zeros((*made.shape, len(LABELS)), np.float32)
    for row, place in np.ndindex(made.shape):
        logits[row, place, label_of(row, place)] = 4.0
    return logits


def test_the_first_token_of_a_word_decides_and_what_is_untagged_is_left_out(tags):
    text = "Anna lives in Paris"  # [CLS] anna lives in par ##is [SEP]
    labels = [1, 1, 0, 0, 2, 0, 1, 1]
    found = tags.finish({"logits": scores(tags, [text], lambda _, place: labels[place])}, {"text": [text]})["tags"][0]
    sure = round(float(np.exp(4) / (np.exp(4) + 2)), 6)
    assert found == [
        {"text": "Anna", "label": "B-PER", "score": sure, "start": 0, "end": 4},
        {"text": "Paris", "label": "B-LOC", "score": sure, "start": 14, "end": 19},
    ]
    assert json.loads(json.dumps(found)) == found


def test_what_was_cut_off_is_not_tagged(tags):
    text = "paris, " * 40
    found = tags.finish({"logits": scores(tags, [text], lambda *_: 2)}, {"text": [text]})["tags"][0]
    assert found[-1]["end"] <= len(text) / 2
    assert sum(len(each["text"]) == 5 for each in found) == 7, "three tokens each, twenty-two places"


@settings(max_examples=60)
@given(
    texts=st.lists(
        st.text(st.sampled_from(list("annaPARIS lives,.-é3 \tż中")), min_size=1, max_size=40).filter(str.strip),
        min_size=1, max_size=4,
    ),
    seed=st.integers(0, 9),
    wider=st.integers(0, 5),
)  # fmt: skip
def test_words_come_in_order_do_not_overlap_and_lie_in_the_text(tags, texts, seed, wider):
    random = np.random.default_rng(seed)
    width = tags.prepare({"text": texts})["input_ids"].shape[1]
    logits = random.normal(size=(len(texts), width + wider, len(LABELS)))
    for text, found in zip(texts, tags.finish({"logits": logits}, {"text": texts})["tags"], strict=True):
        at = 0
        for word in found:
            assert at <= word["start"] < word["end"] <= len(text)
            assert text[word["start"] : word["end"]] == word["text"]
            assert not any(each.isspace() for each in word["text"])
            assert word["label"] in LABELS[1:]
            assert 1 / len(LABELS) <= word["score"] <= 1
            at = word["end"]


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ({"other": np.zeros((1, 8, 3))}, "gives no 'logits'"),
        ({"logits": np.zeros((1, 8, 4))}, r"is \[1, 8, 4\]"),
        ({"logits": np.zeros((2, 8, 3))}, r"is \[2, 8, 3\]"),
        ({"logits": np.zeros((1, 3, 3))}, "of 3 tokens, but a sample has 7"),
    ],
)
def test_outputs_of_another_shape_are_refused(tags, outputs, words):
    with pytest.raises(PipelineError, match=words):
        tags.finish(outputs, {"text": ["Anna lives in Paris"]})


def test_tags_need_a_text_before_the_model(tmp_path):
    with pytest.raises(PipelineError, match="tags need one text"):
        Pipeline({"schema": 1, "postprocess": TAGS}, tmp_path)
    with pytest.raises(PipelineError, match="tags need one text"):
        pipeline(tmp_path, TAGS, fields=["one", "other"])


def test_they_are_those_of_transformers(tmp_path):
    """B- before every label keeps transformers from joining neighbours."""
    import tiny_hf
    import torch
    import transformers

    from mlpack.sources.hf_pipeline import pipeline_of

    model = tiny_hf.make("tagger")
    with torch.no_grad():
        model.classifier.weight *= 60
    folder = tmp_path / "tagger"
    model.save_pretrained(folder)
    tiny_hf.word_pieces(folder)
    ours = Pipeline(pipeline_of(folder, tmp_path)[0], folder)
    texts = [
        "The river flows through Paris and London.", "unbelievable walking, Bob!", "Ann's city of light - old? 1 2 3",
        "wholly unknown words é 北京 in Paris " * 3,
    ]  # fmt: skip
    theirs = transformers.pipeline("token-classification", model=str(folder), aggregation_strategy="first")
    prepared = ours.prepare({"text": texts})
    with torch.inference_mode():
        logits = model(**{name: torch.from_numpy(array) for name, array in prepared.items()}).logits.numpy()
    seen = set()
    for text, found in zip(texts, ours.finish({"logits": logits}, {"text": texts})["tags"], strict=True):
        wanted = [(each["entity_group"], each["start"], each["end"]) for each in theirs(text)]
        assert [(each["label"].removeprefix("B-"), each["start"], each["end"]) for each in found] == wanted
        np.testing.assert_allclose([e["score"] for e in found], [float(e["score"]) for e in theirs(text)], atol=1e-4)
        seen |= {each["label"] for each in found}
    assert seen == {"B-PER", "B-LOC"}
