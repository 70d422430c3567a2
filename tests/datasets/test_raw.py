"""Texts in tables and images in folders as datasets: what is read, in which order, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from raw_files import image_pipeline, images, text_pipeline, texts, write_table

from mlpack.core.model import TensorSpec
from mlpack.datasets import open_data
from mlpack.errors import DataError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MLPACK_CACHE", str(tmp_path / "cache"))


def all_rows(dataset, size=7):
    """Labels, texts and inputs of every row, in the order of the rows."""
    batches = list(dataset.batches(size))
    rows = np.concatenate([batch.rows for batch in batches])
    told = {}
    for batch in batches:
        for at, row in enumerate(batch.rows):
            mask = batch.inputs["attention_mask"][at].astype(bool)
            told[int(row)] = (
                batch.raw["text"][at],
                batch.inputs["input_ids"][at][mask].tolist(),
                int(batch.labels[at]),
            )
    assert sorted(rows.tolist()) == list(range(len(dataset)))
    return [told[row] for row in sorted(told)]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_every_kind_of_table_gives_the_same_rows(tmp_path, suffix):
    raw = text_pipeline(tmp_path / "pipeline")
    rows = texts(50)
    dataset = open_data(str(write_table(tmp_path / f"reviews{suffix}", rows)), raw=raw)
    assert len(dataset) == 50
    assert dataset.labelled
    assert [str(each) for each in dataset.inputs] == [
        "input_ids int64[batch, length]", "attention_mask int64[batch, length]",
    ] or {spec.name: spec.dims for spec in dataset.inputs} == {
        "input_ids": ("batch", "length"), "attention_mask": ("batch", "length"),
    }  # fmt: skip
    found = all_rows(dataset)
    assert [text for text, _, _ in found] == [row["text"] for row in rows]
    assert [label for _, _, label in found] == [int(row["label"] == "up") for row in rows]
    assert [len(ids) for _, ids, _ in found] == [len(row["text"].split()) + 2 for row in rows]


def test_a_batch_holds_texts_of_about_one_length_and_the_first_is_a_usual_one(tmp_path):
    raw = text_pipeline(tmp_path / "pipeline")
    path = write_table(tmp_path / "reviews.csv", texts(200))
    dataset = open_data(str(path), raw=raw)
    lengths = [batch.inputs["attention_mask"].sum(axis=1) for batch in dataset.batches(10)]
    every = np.concatenate(lengths)
    assert all(np.ptp(each) <= 8 for each in lengths)
    assert np.percentile(every, 30) < lengths[0].mean() < np.percentile(every, 70)
    # The first few batches calibrate and are timed: they are like all of them.
    assert abs(np.concatenate(lengths[:5]).mean() - every.mean()) < 12
    again = [batch.rows.tolist() for batch in dataset.batches(10)]
    assert again == [batch.rows.tolist() for batch in open_data(str(path), raw=raw).batches(10)]
    in_order = open_data(str(path), raw=raw.model_copy(update={"order": "rows"}))
    assert np.concatenate([batch.rows for batch in in_order.batches(10)]).tolist() == list(range(200))


def test_samples_are_reported_by_length_where_they_have_no_groups(tmp_path):
    raw = text_pipeline(tmp_path / "pipeline")
    dataset = open_data(str(write_table(tmp_path / "reviews.csv", texts(100))), raw=raw)
    for batch in dataset.batches(16):
        assert batch.group is not None
        for group, length in zip(batch.group, batch.inputs["attention_mask"].sum(axis=1), strict=True):
            words = group.split()
            low, high = (0, int(words[2])) if words[0] == "up" else (int(words[0]), int(words[2]))
            assert low <= length <= high
    rows = [{**row, "group": "a" if at % 2 else "b"} for at, row in enumerate(texts(30))]
    own = open_data(str(write_table(tmp_path / "own.csv", rows)), raw=raw)
    assert {name for batch in own.batches(8) for name in batch.group} == {"a", "b"}


def test_columns_say_what_a_table_holds(tmp_path):
    raw = text_pipeline(tmp_path / "pipeline")
    rows = [
        {"id": at, "review": row["text"], "sentiment": row["label"], "lang": "en", "user": at // 3}
        for at, row in enumerate(texts(30))
    ]
    path = write_table(tmp_path / "reviews.csv", rows)
    named = {"text": "review", "label": "sentiment", "group": "lang", "cluster": "user"}
    dataset = open_data(str(path), raw=raw.model_copy(update={"columns": named}))
    (batch,) = dataset.batches(30)
    assert set(batch.group) == {"en"}
    by_row = dict(zip(batch.rows.tolist(), batch.cluster.tolist(), strict=True))
    assert [by_row[at] == by_row[at + 1] for at in range(0, 29, 3)] == [True] * 10
    with pytest.raises(DataError, match=r"which column of .* holds the text"):
        open_data(str(path), raw=raw)
    with pytest.raises(DataError, match="has no column 'stars': it has id, review") as error:
        open_data(str(path), raw=raw.model_copy(update={"columns": {"text": "review", "label": "stars"}}))
    assert error.value.hint == "--columns label=id"
    with pytest.raises(DataError, match="not 'labels'"):
        open_data(str(path), raw=raw.model_copy(update={"columns": {"labels": "sentiment"}}))


def test_pairs_of_texts_become_one_sequence(tmp_path):
    raw = text_pipeline(
        tmp_path / "pipeline", fields=["text", "text_pair"],
        inputs={"input_ids": "ids", "token_type_ids": "type_ids"},
    )  # fmt: skip
    path = write_table(tmp_path / "pairs.jsonl", [{"text": "good film", "text_pair": "bad", "label": "up"}] * 3)
    (batch,) = open_data(str(path), raw=raw).batches(3)
    assert batch.inputs["input_ids"][0].tolist() == [2, 4, 8, 3, 5, 3, 0, 0]
    assert batch.inputs["token_type_ids"][0].tolist() == [0, 0, 0, 0, 1, 1, 0, 0]


def test_what_is_too_long_is_cut_and_said(tmp_path):
    raw = text_pipeline(tmp_path / "pipeline", max_length=12)
    dataset = open_data(str(write_table(tmp_path / "reviews.csv", texts(40))), raw=raw)
    assert max(batch.inputs["input_ids"].shape[1] for batch in dataset.batches(8)) == 12
    (note,) = dataset.notes
    assert "texts are longer than 12 tokens and are cut there" in note


def test_empty_texts_are_named_and_may_be_left_out(tmp_path):
    raw = text_pipeline(tmp_path / "pipeline")
    rows = texts(30)
    rows[4]["text"], rows[17]["text"] = "", "   "
    path = write_table(tmp_path / "reviews.csv", rows)
    with pytest.raises(DataError, match=r"2 of 30 samples .* row 5: 'text' is empty; row 18: 'text' is empty") as error:
        open_data(str(path), raw=raw)
    assert error.value.hint.endswith("--skip-bad 2")
    dataset = open_data(str(path), raw=raw.model_copy(update={"skip_bad": 2}))
    assert len(dataset) == 28
    assert [text for text, _, _ in all_rows(dataset)] == [row["text"] for row in rows if row["text"].strip()]


def test_a_class_that_the_model_does_not_have(tmp_path):
    raw = text_pipeline(tmp_path / "pipeline")
    rows = [{**row, "label": "sideways"} if at == 3 else row for at, row in enumerate(texts(30))]
    with pytest.raises(DataError, match="has the class 'sideways', which the model does not have: it has down, up"):
        open_data(str(write_table(tmp_path / "a.csv", rows)), raw=raw)
    numbers = [{**row, "label": 7 if at == 3 else 1} for at, row in enumerate(texts(30))]
    with pytest.raises(DataError, match="has the label 7, but the model has 2 classes"):
        open_data(str(write_table(tmp_path / "b.csv", numbers)), raw=raw)
    none = [{**row, "label": "" if at == 3 else "up"} for at, row in enumerate(texts(30))]
    with pytest.raises(DataError, match=r"row 4 of .* has no label"):
        open_data(str(write_table(tmp_path / "c.csv", none)), raw=raw)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.parquet", b"PAR1 not at all"), ("a.jsonl", b'{"text": "x"}\n{"text": ['), ("a.csv", b'text,label\n"a,b\n'),
        ("b.csv", b"text,label\na,b,c\n"), ("c.csv", b"\xff\xfe\x00text"), ("d.jsonl", b"[1, 2]\n"),
    ],
)  # fmt: skip
def test_a_damaged_table_is_refused_in_one_line(tmp_path, name, content):
    raw = text_pipeline(tmp_path / "pipeline")
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        open_data(str(path), raw=raw)
    assert "\n" not in error.value.message


def test_the_fingerprint_is_of_content_and_preparation_not_of_the_place(tmp_path):
    raw = text_pipeline(tmp_path / "pipeline")
    one = open_data(str(write_table(tmp_path / "a.csv", texts(30))), raw=raw)
    same = open_data(str(write_table(tmp_path / "b.csv", texts(30))), raw=raw)
    other = open_data(str(write_table(tmp_path / "c.csv", texts(30, seed=1))), raw=raw)
    shorter = open_data(str(tmp_path / "a.csv"), raw=text_pipeline(tmp_path / "shorter", max_length=12))
    assert one.fingerprint == same.fingerprint
    assert len({one.fingerprint, other.fingerprint, shorter.fingerprint}) == 3


def test_raw_data_without_a_pipeline_says_what_it_needs(tmp_path):
    path = write_table(tmp_path / "a.csv", texts(30))
    with pytest.raises(DataError, match="holds texts") as error:
        open_data(str(path))
    assert error.value.hint.startswith("--tokenizer")
    with pytest.raises(DataError, match="holds image files") as error:
        open_data(str(images(tmp_path / "images")))
    assert "--preprocess imagenet" in error.value.hint


def test_a_model_of_one_length_says_so(tmp_path):
    raw = text_pipeline(tmp_path / "pipeline")
    path = write_table(tmp_path / "a.csv", texts(30))
    specs = tuple(TensorSpec(name=n, dtype="int64", dims=("batch", 32)) for n in ("input_ids", "attention_mask"))
    with pytest.raises(DataError, match="its length is fixed at 32"):
        open_data(str(path), specs, raw=raw)


def test_images_by_class_in_the_order_of_their_paths(tmp_path):
    raw = image_pipeline(tmp_path / "pipeline")
    dataset = open_data(str(images(tmp_path / "images")), raw=raw)
    assert [(spec.name, spec.dims) for spec in dataset.inputs] == [("image", ("batch", 3, 16, 16))]
    batches = list(dataset.batches(5))
    assert np.concatenate([batch.labels for batch in batches]).tolist() == [0] * 12 + [1] * 12
    for batch in batches:
        bright = batch.inputs["image"].mean(axis=(1, 2, 3))
        assert ((bright > 0.5) == (batch.labels == 1)).all()
    assert batches[0].names[0] == "dark/000.png"


def test_an_undecodable_image_is_named_and_may_be_left_out(tmp_path):
    raw = image_pipeline(tmp_path / "pipeline")
    folder = images(tmp_path / "images")
    whole = (folder / "light" / "003.png").read_bytes()
    (folder / "light" / "003.png").write_bytes(whole[: len(whole) // 2])
    (folder / "dark" / "004.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"2 of 24 samples .*dark/004\.png: the image cannot be decoded") as error:
        open_data(str(folder), raw=raw)
    assert error.value.hint.endswith("--skip-bad 2")
    dataset = open_data(str(folder), raw=raw.model_copy(update={"skip_bad": 2}))
    names = [name for batch in dataset.batches(4) for name in batch.names]
    assert len(names) == 22
    assert "light/003.png" not in names


def test_folders_that_are_no_classes_of_the_model(tmp_path):
    raw = image_pipeline(tmp_path / "pipeline", labels=("cat", "dog"))
    with pytest.raises(DataError, match="has the class 'dark', which the model does not have: it has cat, dog"):
        open_data(str(images(tmp_path / "images")), raw=raw)
    folder = images(tmp_path / "mixed")
    (folder / "loose.png").write_bytes((folder / "dark" / "000.png").read_bytes())
    with pytest.raises(DataError, match=r"images beside its subfolders, such as loose\.png"):
        open_data(str(folder), raw=image_pipeline(tmp_path / "other"))


def test_images_alone_have_no_labels(tmp_path):
    folder = images(tmp_path / "images") / "dark"
    dataset = open_data(str(folder), raw=image_pipeline(tmp_path / "pipeline"))
    assert not dataset.labelled
    assert len(dataset) == 12
