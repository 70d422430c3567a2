"""What a folder says about before and after: the very tokens and pixels that transformers makes, labels by number."""

from __future__ import annotations

import io
import json
import shutil

import numpy as np
import pytest
import tiny_hf
from PIL import Image

from mlpack.errors import ModelError
from mlpack.pipeline import Pipeline
from mlpack.sources.hf_pipeline import labels_of, pipeline_of, without_before

TEXTS = [
    "The river flows through Paris.",
    "Bob's walking",
    "unbelievable! Playing in the CITY of light, where Ann lives - and Bob walks long",
    "北京 is old é",
    "paris " * 60,
]
QUESTIONS = ["Where lives Ann?", "Who walks?", "what", "a", "the river and the city"]


@pytest.fixture
def work(tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def folder_of(tmp_path, kind, **changes):
    place = tmp_path / "folder"
    tiny_hf.make(kind, **changes).config.save_pretrained(place)
    config = json.loads((place / "config.json").read_text())
    # The config alone knows no architecture; save_pretrained of a model writes it.
    (place / "config.json").write_text(json.dumps({**config, "architectures": [tiny_hf.KINDS[kind][0]]}))
    return place


def built(folder, work):
    """The pipeline, made from nothing but the document and its files."""
    document, files = pipeline_of(folder, work)
    carried = work / "carried"
    carried.mkdir(exist_ok=True)
    for name, path in files.items():
        shutil.copyfile(path, carried / name)
    # As it will come out of the file.
    return Pipeline(json.loads(json.dumps(document)), carried)


def theirs(folder, most, *columns):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    made = tokenizer(*columns, padding="max_length", truncation=True, max_length=most, return_tensors="np")
    # A batch of ours is as long as its longest text, in steps of eight.
    width = min(most, -(-int(made["attention_mask"].sum(1).max()) // 8) * 8)
    return {name: array[:, :width] for name, array in made.items()}


@pytest.mark.parametrize(
    ("kind", "write", "options", "most"),
    [
        ("bert", tiny_hf.word_pieces, {}, 30),
        ("bert", tiny_hf.word_pieces, {"do_lower_case": False, "model_max_length": 10**30}, 40),
        ("bert", tiny_hf.word_pieces, {"strip_accents": False, "tokenize_chinese_chars": False}, 30),
        ("distilbert", tiny_hf.word_pieces, {"model_max_length": 16}, 16),
        ("roberta", tiny_hf.byte_pairs, {}, 40),
        ("roberta", tiny_hf.byte_pairs, {"add_prefix_space": True, "model_max_length": 21}, 21),
    ],
)
def test_tokens_are_those_of_transformers(kind, write, options, most, tmp_path, work):
    folder = write(folder_of(tmp_path, kind), **options)
    pipeline = built(folder, work)
    made = pipeline.prepare({"text": TEXTS})
    expected = theirs(folder, most, TEXTS)
    assert set(made) == {name for name, _, _ in pipeline.preprocess.inputs} <= set(expected)
    for name, array in made.items():
        assert array.dtype == np.int64
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


def test_a_question_and_its_context_are_one_input(tmp_path, work):
    folder = tiny_hf.word_pieces(folder_of(tmp_path, "answers"))
    pipeline = built(folder, work)
    assert pipeline.fields == ("question", "context")
    made = pipeline.prepare({"question": QUESTIONS, "context": TEXTS})
    for name, expected in theirs(folder, 30, QUESTIONS, TEXTS).items():
        np.testing.assert_array_equal(made[name], expected, err_msg=name)
    assert made["token_type_ids"].any()


def test_what_tokenizer_config_says_of_the_normalizer_counts(tmp_path, work):
    folder = tiny_hf.word_pieces(folder_of(tmp_path, "bert"))
    told = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**told, "do_lower_case": False}))
    assert json.loads((folder / "tokenizer.json").read_text())["normalizer"]["lowercase"]
    made = built(folder, work).prepare({"text": TEXTS})
    np.testing.assert_array_equal(made["input_ids"], theirs(folder, 30, TEXTS)["input_ids"])


def test_a_tokenizer_of_an_older_form_is_converted_first(tmp_path, work):
    folder = folder_of(tmp_path, "bert")
    (folder / "vocab.txt").write_text("\n".join(tiny_hf.WORDS) + "\n")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "do_lower_case": true}')
    made = built(folder, work).prepare({"text": TEXTS})
    assert not (folder / "tokenizer.json").exists()
    np.testing.assert_array_equal(made["input_ids"], theirs(folder, 40, TEXTS)["input_ids"])


def test_a_tokenizer_that_cannot_be_converted_is_an_error_with_a_way_out(tmp_path, work):
    folder = folder_of(tmp_path, "bert")
    (folder / "spiece.model").write_bytes(b"no model")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "XLNetTokenizer"}')
    with pytest.raises(ModelError, match="transformers cannot convert it") as raised:
        pipeline_of(folder, work)
    assert "save_pretrained" in raised.value.hint


def test_a_tokenizer_that_pads_on_the_left_is_refused(tmp_path, work):
    folder = tiny_hf.word_pieces(folder_of(tmp_path, "bert"), padding_side="left")
    with pytest.raises(ModelError, match="pads on the left"):
        pipeline_of(folder, work)


def test_nothing_is_said_where_the_folder_says_nothing(tmp_path, work):
    assert pipeline_of(folder_of(tmp_path, "encoder"), work) == ({"schema": 1}, {})
    assert pipeline_of(folder_of(tmp_path, "tagger"), work) == ({"schema": 1}, {}), "tags of no text"


@pytest.mark.parametrize(
    ("kind", "changes", "expected"),
    [
        (
            "bert",
            {"id2label": {0: "bad", 1: "so so", 2: "good"}},
            {"labels": ["bad", "so so", "good"], "activation": "softmax"},
        ),
        ("bert", {"num_labels": 2}, {"labels": ["LABEL_0", "LABEL_1"], "activation": "softmax"}),
        (
            "roberta",
            {"problem_type": "multi_label_classification"},
            {"labels": ["LABEL_0", "LABEL_1", "LABEL_2"], "activation": "sigmoid"},
        ),
        ("distilbert", {"num_labels": 1}, None),
        ("bert", {"problem_type": "regression"}, None),
        ("vit", {"id2label": {0: "cat", 1: "dog", 2: "é"}}, {"labels": ["cat", "dog", "é"], "activation": "softmax"}),
    ],
)
def test_labels_follow_the_config(kind, changes, expected, tmp_path, work):
    document, _ = pipeline_of(folder_of(tmp_path, kind, **changes), work)
    wanted = None if expected is None else {"kind": "labels", "output": "logits", **expected}
    assert document.get("postprocess") == wanted


def test_labels_in_any_order_of_the_file_are_in_that_of_their_numbers():
    assert labels_of({"id2label": {"10": "k", **{str(each): str(each) for each in range(10)}}})[10] == "k"
    for damaged in ({"1": "a", "2": "b"}, {"x": "a"}, ["a"]):
        with pytest.raises(ModelError, match="id2label"):
            labels_of({"id2label": damaged})


def images():
    """Files of odd sizes, smaller and larger than any size asked for; one gray, one with a palette."""
    random = np.random.default_rng(0)
    made = []
    for height, width in ((61, 97), (40, 40), (128, 77), (33, 200)):
        smooth = np.cumsum(random.normal(0, 9, (height, width, 3)), axis=1) + 128
        made.append(Image.fromarray(np.clip(smooth, 0, 255).astype(np.uint8)))
    made.append(made[0].convert("L").convert("RGB"))
    return made


def content(image):
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
PROCESSORS = [
    # As transformers wrote them over the years.
    ("vit", {"do_normalize": True, "do_resize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": 32}),
    ("vit", {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 48}, "resample": 3}),
    ("vit", {"image_processor_type": "ViTImageProcessorFast", "size": 32, "do_rescale": False, **IMAGENET}),
    ("vit", {"image_processor_type": "ViTImageProcessor", "size": 32, "do_normalize": False, "rescale_factor": 0.01}),
    ("resnet", {"feature_extractor_type": "ConvNextFeatureExtractor", "size": 48, "crop_pct": 0.875, **IMAGENET}),
    ("resnet", {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 48}, "crop_pct": 0.9}),
    ("resnet", {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 384}, "resample": 2}),
    (
        "vit",
        {
            "feature_extractor_type": "DeiTFeatureExtractor", "size": 45, "crop_size": 32, "do_center_crop": True,
            "resample": 3, **IMAGENET,
        },
    ),
    (
        "vit",
        {
            "image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 40},
            "crop_size": {"height": 33, "width": 35}, **IMAGENET,
        },
    ),
    ("vit", {"feature_extractor_type": "CLIPFeatureExtractor", "size": 36, "crop_size": 31}),
    ("vit", {"image_processor_type": "BitImageProcessor", "do_resize": False, "crop_size": 64}),
    ("vit", {"image_processor_type": "BeitImageProcessor", "size": 32}),
    ("vit", {"image_processor_type": "SiglipImageProcessor", "size": {"height": 32, "width": 32}, "resample": 0}),
    ("vit", {"image_processor_type": "PvtImageProcessor", "size": {"height": 32, "width": 40}}),
    ("vit", {"image_processor_type": "MobileNetV1ImageProcessor"}),
    ("vit", {"image_processor_type": "MobileNetV2ImageProcessor", "size": {"shortest_edge": 37}, "crop_size": 32}),
    ("vit", {"image_processor_type": "MobileViTImageProcessor", "size": {"shortest_edge": 70}, "crop_size": 65}),
    ("vit", {"image_processor_type": "EfficientNetImageProcessor", "size": {"height": 32, "width": 32}}),
    (
        "vit",
        {
            "image_processor_type": "EfficientNetImageProcessor", "size": {"height": 40, "width": 40},
            "do_center_crop": True, "crop_size": {"height": 31, "width": 31}, "rescale_factor": 1 / 127.5,
            "rescale_offset": True, "include_top": False,
        },
    ),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "told"), PROCESSORS, ids=lambda value: value if isinstance(value, str) else "")
def test_pixels_are_those_of_transformers(kind, told, tmp_path, work):
    from transformers import AutoImageProcessor

    folder = folder_of(tmp_path, kind)
    (folder / "preprocessor_config.json").write_text(json.dumps(told))
    made = built(folder, work).prepare({"image": [content(image) for image in images()]})["pixel_values"]
    processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True, backend="pil")
    expected = processor(images(), return_tensors="np")["pixel_values"]
    assert made.shape == expected.shape
    np.testing.assert_allclose(made, expected, atol=2e-6 * max(1, np.abs(expected).max()))


def test_what_shines_through_is_white_where_the_processor_makes_it_so(tmp_path, work):
    from transformers import AutoImageProcessor

    folder = folder_of(tmp_path, "vit")
    told = {"image_processor_type": "ViTImageProcessor", "size": 32, "do_convert_rgb": True}
    (folder / "preprocessor_config.json").write_text(json.dumps(told))
    image = images()[0].convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    made = built(folder, work).prepare({"image": [content(image)]})["pixel_values"]
    processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True, backend="pil")
    np.testing.assert_allclose(made, processor([image], return_tensors="np")["pixel_values"], atol=2e-6)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"image_processor_type": "OwnImageProcessor"}, "not known: Own"),
        ({"image_processor_type": "BitImageProcessor", "do_center_crop": False}, "come out in different sizes"),
        ({"image_processor_type": "ViTImageProcessor", "size": {"longest_edge": 32}}, "longest_edge"),
        ({"image_processor_type": "ViTImageProcessor", "resample": 9}, "cannot be followed"),
        ({"image_processor_type": "ViTImageProcessor", "do_pad": True}, "it pads images"),
    ],
)
def test_a_processor_that_cannot_be_followed_is_refused(told, words, tmp_path, work):
    folder = folder_of(tmp_path, "vit")
    (folder / "preprocessor_config.json").write_text(json.dumps(told))
    with pytest.raises(ModelError, match=words) as raised:
        pipeline_of(folder, work)
    assert "--preprocess" in raised.value.hint


def test_a_folder_may_be_asked_for_what_comes_after_alone(tmp_path):
    folder = folder_of(tmp_path, "vit")
    (folder / "preprocessor_config.json").write_text('{"image_processor_type": "OwnImageProcessor"}')
    assert without_before(folder)["postprocess"]["labels"] == ["LABEL_0", "LABEL_1", "LABEL_2"]
    assert without_before(folder_of(tmp_path, "tagger")) == {"schema": 1}


def test_damaged_files_are_named(tmp_path, work):
    folder = tiny_hf.word_pieces(folder_of(tmp_path, "bert"))
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match=r"tokenizer\.json cannot be read"):
        pipeline_of(folder, work)


def test_a_tokenizer_that_is_not_the_models_is_refused(tmp_path, work):
    folder = folder_of(tmp_path, "roberta", vocab_size=47)
    tiny_hf.byte_pairs(folder)
    with pytest.raises(ModelError, match="does not fit the model: it has token ids up to 329, the model knows 47"):
        pipeline_of(folder, work)
