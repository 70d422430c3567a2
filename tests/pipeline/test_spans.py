"""Answers cut out of a context: the best pair of a beginning and an end, found again by trying all of them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokens_of import pipeline

from mlpack.pipeline import Pipeline, PipelineError

FIELDS = ["question", "context"]
SPANS = {"kind": "spans"}
QUESTION = "Anna lives in"  # [CLS] anna lives in [SEP], then the context


@pytest.fixture(scope="module")
def spans(tmp_path_factory):
    return pipeline(tmp_path_factory.mktemp("spans"), {**SPANS, "longest": 4}, fields=FIELDS)


def raw(contexts):
    return {"question": [QUESTION] * len(contexts), "context": contexts}


def width(spans, contexts):
    return spans.prepare(raw(contexts))["input_ids"].shape[1]


def test_an_answer_is_cut_out_of_the_context(spans):
    context = "near the old London, Paris."
    start, end = np.zeros((2, 1, width(spans, [context])))
    start[0, 5 + 2] = 9  # old
    end[0, 5 + 3] = 9  # london
    start[0, 1] = end[0, 1] = 20  # in the question: no answer
    found = spans.finish({"start_logits": start, "end_logits": end}, raw([context]))
    assert (found["answer"], found["start"], found["end"]) == (["old London"], [9], [19])
    places = 8 + 1  # near the old london , par ##is . and the first token
    sure = np.exp(9) / (np.exp(9) + places - 1)
    assert found["score"][0] == pytest.approx(sure**2, abs=1e-6)
    assert json.loads(json.dumps(found)) == found


def test_doubt_in_the_first_token_takes_from_the_score(spans):
    start, end = np.zeros((2, 1, width(spans, ["near the old London"])))
    start[0, 0] = end[0, 0] = 12
    assert spans.finish({"start_logits": start, "end_logits": end}, raw(["near the old London"]))["score"][0] < 1e-6


def test_an_end_before_the_beginning_is_no_answer_and_nor_is_a_long_one(spans):
    context = "near the old London in Paris, the old"
    start, end = np.zeros((2, 1, width(spans, [context])))
    start[0, 5 + 5] = end[0, 5] = 9
    (answer,) = spans.finish({"start_logits": start, "end_logits": end}, raw([context]))["answer"]
    assert answer in {"near", "Par", "Paris", "Paris,", "Paris, the"}
    start, end = np.zeros((2, 1, width(spans, [context])))
    start[0, 5], end[0, 5 + 8] = 9, 9
    found = spans.finish({"start_logits": start, "end_logits": end}, raw([context]))
    assert found["end"][0] - found["start"][0] < len(context)


def test_no_room_for_a_context_is_no_answer(tmp_path):
    tight = pipeline(tmp_path, SPANS, fields=FIELDS, max_length=4)
    asked = {"question": ["anna lives in the old london"], "context": ["."]}
    assert not tight.prepare(asked)["token_type_ids"][0, :3].any(), "the one free place went to the question"
    found = tight.finish({name: np.ones((1, 4)) for name in ("start_logits", "end_logits")}, asked)
    assert found == {"answer": [""], "score": [0.0], "start": [0], "end": [0]}


@settings(max_examples=60)
@given(
    contexts=st.lists(
        st.text(st.sampled_from(list("annaPARIS lives,.-é3 \tż中")), min_size=1, max_size=60).filter(str.strip),
        min_size=1, max_size=3,
    ),
    seed=st.integers(0, 9),
)  # fmt: skip
def test_the_best_of_all_pairs_is_found(spans, contexts, seed):
    random = np.random.default_rng(seed)
    given_ = raw(contexts)
    start, end = random.normal(0, 2, (2, len(contexts), width(spans, contexts)))
    found = spans.finish({"start_logits": start, "end_logits": end}, given_)
    for row, (context, encoding) in enumerate(zip(contexts, spans.preprocess.encode(given_), strict=True)):
        places = [at for at, part in enumerate(encoding.sequence_ids) if part == 1]
        all_begins, all_ends = (np.exp(each[row, [0, *places]]).sum() for each in (start, end))
        best = max(
            (float(np.exp(start[row, one] + end[row, other]) / all_begins / all_ends), one, other)
            for one in places
            for other in places
            if one <= other < one + 4
        )
        assert found["score"][row] == pytest.approx(best[0], abs=1e-6)
        began, ended = encoding.offsets[best[1]][0], encoding.offsets[best[2]][1]
        assert (found["start"][row], found["end"][row]) == (began, ended)
        assert found["answer"][row] == context[began:ended]


def test_spans_need_a_question_and_a_context(tmp_path):
    with pytest.raises(PipelineError, match="a question and a context"):
        Pipeline({"schema": 1, "postprocess": SPANS}, tmp_path)
    with pytest.raises(PipelineError, match="a question and a context"):
        pipeline(tmp_path, SPANS)


def test_outputs_that_are_not_there_are_named(spans):
    with pytest.raises(PipelineError, match="gives no 'end_logits': it gives start_logits"):
        spans.finish({"start_logits": np.zeros((1, 16))}, raw(["paris"]))
