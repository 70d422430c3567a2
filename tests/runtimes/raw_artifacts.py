"""Builds small artifacts with a pipeline by hand: texts, pairs of texts, images, and one side only."""

from __future__ import annotations

import base64
import io
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper
from tiny_artifacts import make

from mlpack.core.model import TensorSpec
from mlpack.pipeline import Pipeline

if TYPE_CHECKING:
    from mlpack.core.artifact import Stored

WORDS = ("good", "bad", "fine", "awful", "great", "boring", "the", "a", "film", "was", "and", "plot", "music",
         "truly", "not", "very")  # fmt: skip
TEXTS = ["good film", "the plot was truly awful and the music was very very bad", "fine", "not great not bad",
         "a boring film", "truly great music and a good plot"]  # fmt: skip
OTHERS = ["the film", "fine", "the music was awful", "a plot", "very very boring", "great"]
LABELS = ["negative", "neutral", "positive"]
SIDE = 8
FINISH = """
def finish(outputs):
    scores = outputs["logits"]
    best = int(scores.argmax())
    return {"best": best, "sure": bool(scores.max() > 0), "margin": float(scores.max() - scores.min()),
            "ranking": [int(each) for each in scores.argsort()], "note": f"class {best}"}
"""
RAW_KINDS = ("reviews", "pairs", "photos", "numbers", "plain")


def make_raw(folder: Path, kind: str, **changes: object) -> Stored:
    """reviews: text → label, score. pairs: two texts → a user's columns. photos: image → label, score.

    numbers: tensors → label, score. plain: text → tensors.
    """
    built = pixels_graph() if kind == "photos" else words_graph()
    raw = raw_samples(kind)
    document = described(kind)

    def beside(place: Path) -> None:
        (place / "pipeline").mkdir()
        (place / "pipeline" / "pipeline.yaml").write_text(yaml.safe_dump(document))
        if kind != "photos":
            tokenizer().save(str(place / "pipeline" / "tokenizer.json"))
        (place / "pipeline" / "finish.py").write_text(FINISH)
        if not raw:
            return
        (place / "golden" / "raw.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in written(raw)))
        answers = expected(place, document, raw)
        if answers:
            (place / "golden" / "answers.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in answers))

    with tempfile.TemporaryDirectory() as made:
        tokenizer().save(f"{made}/tokenizer.json")
        before = described("reviews" if kind == "numbers" else kind)["preprocess"]
        given = Pipeline({"preprocess": before}, Path(made)).prepare(raw or {"text": TEXTS})
    return make(folder, kind, built=built, given=given, beside=beside, **changes)


def raw_samples(kind: str) -> dict[str, list]:
    """Six raw samples by field."""
    if kind == "photos":
        return {"image": [picture(turn) for turn in range(6)]}
    if kind == "numbers":
        return {}
    return {"text": TEXTS, **({"text_pair": OTHERS} if kind == "pairs" else {})}


def written(raw: dict[str, list]) -> list[dict[str, object]]:
    """The lines of raw.jsonl."""
    shown = {
        name: [{"b64": base64.b64encode(each).decode()} if isinstance(each, bytes) else each for each in values]
        for name, values in raw.items()
    }
    return [dict(zip(shown, row, strict=True)) for row in zip(*shown.values(), strict=True)]


def described(kind: str) -> dict[str, object]:
    """The content of pipeline.yaml."""
    labels = {"kind": "labels", "output": "logits", "labels": LABELS}
    text = {"kind": "text", "tokenizer": "tokenizer.json", "inputs": {"input_ids": "ids", "mask": "attention_mask"},
            "max_length": 32}  # fmt: skip
    columns = ["best", "sure", "margin", "ranking", "note"]
    return {
        "schema": 1,
        **{
            "reviews": {"preprocess": text, "postprocess": labels},
            "pairs": {
                "preprocess": {**text, "fields": ["text", "text_pair"]},
                "postprocess": {"kind": "python", "file": "finish.py", "function": "finish", "columns": columns},
            },
            "photos": {"preprocess": {"kind": "image", "resize": [SIDE, SIDE]}, "postprocess": labels},
            "numbers": {"postprocess": labels},
            "plain": {"preprocess": text},
        }[kind],
    }


def tokenizer():
    """Whole words and single letters, lower case; texts and pairs with special tokens around them."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {word: at for at, word in enumerate([*special, *WORDS])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token=special[1]))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return made


def picture(turn: int, form: str = "PNG", size: tuple[int, int] = (24, 16)) -> bytes:
    """The bytes of an image file."""
    from PIL import Image

    random = np.random.default_rng(turn)
    pixels = random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form)
    return stream.getvalue()


def words_graph() -> tuple[onnx.ModelProto, list[TensorSpec], list[TensorSpec]]:
    """Mean of the embeddings of what is not padding, then a linear layer."""
    random = np.random.default_rng(7)
    inputs = [
        TensorSpec(name="input_ids", dtype="int64", dims=("batch", "length")),
        TensorSpec(name="mask", dtype="int64", dims=("batch", "length")),
    ]
    outputs = [TensorSpec(name="logits", dtype="float32", dims=("batch", 3))]
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["vectors"]),
        helper.make_node("Cast", ["mask"], ["ones"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["ones", "last"], ["wide"]),
        helper.make_node("Mul", ["vectors", "wide"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "axis"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["wide", "axis"], ["count"], keepdims=0),
        helper.make_node("Div", ["sum", "count"], ["mean"]),
        helper.make_node("MatMul", ["mean", "w"], ["logits"]),
    ]
    weights = [
        numpy_helper.from_array(random.normal(size=(20, 4)).astype(np.float32), "table"),
        numpy_helper.from_array(random.normal(size=(4, 3)).astype(np.float32) * 3, "w"),
        numpy_helper.from_array(np.array([1]), "axis"),
        numpy_helper.from_array(np.array([-1]), "last"),
    ]
    return checked("words", nodes, inputs, outputs, weights)


def pixels_graph() -> tuple[onnx.ModelProto, list[TensorSpec], list[TensorSpec]]:
    """All pixels through a linear layer. The input is called as the raw field is."""
    random = np.random.default_rng(9)
    inputs = [TensorSpec(name="image", dtype="float32", dims=("batch", 3, SIDE, SIDE))]
    outputs = [TensorSpec(name="logits", dtype="float32", dims=("batch", 3)),
               TensorSpec(name="score", dtype="float32", dims=("batch",))]  # fmt: skip
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["logits"]),
        helper.make_node("ReduceMax", ["logits", "axis"], ["score"], keepdims=0),
    ]
    weights = [
        numpy_helper.from_array(random.normal(size=(3 * SIDE * SIDE, 3)).astype(np.float32), "w"),
        numpy_helper.from_array(np.array([1]), "axis"),
    ]
    return checked("pixels", nodes, inputs, outputs, weights)


def checked(
    name: str, nodes: list, inputs: list[TensorSpec], outputs: list[TensorSpec], weights: list
) -> tuple[onnx.ModelProto, list[TensorSpec], list[TensorSpec]]:
    """A checked model, and its interface."""
    kinds = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}
    sides = [
        [helper.make_tensor_value_info(each.name, kinds[each.dtype], list(each.dims)) for each in side]
        for side in (inputs, outputs)
    ]
    graph = helper.make_graph(nodes, name, *sides, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model, inputs, outputs


def expected(place: Path, document: dict[str, object], raw: dict[str, list]) -> list[dict[str, object]]:
    """The pipeline's answers, each sample by itself, in this process."""
    answers = []
    for row in range(len(next(iter(raw.values())))):
        one = {name: values[row : row + 1] for name, values in raw.items()}
        _, columns = in_process(place, one, Pipeline(document, place / "pipeline"))
        answers.append({name: values[0] for name, values in columns.items()})
    return answers if document.get("postprocess") else []


def in_process(
    place: Path, raw: dict[str, list], pipeline: Pipeline | None = None
) -> tuple[dict[str, np.ndarray], dict[str, list]]:
    """What comes of raw samples without any server: outputs and columns."""
    import onnxruntime as ort

    pipeline = pipeline or Pipeline.load(place / "pipeline")
    session = ort.InferenceSession(str(place / "model" / "model.onnx"), providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    outputs = dict(zip(names, session.run(names, pipeline.prepare(raw)), strict=True))
    return outputs, pipeline.finish(outputs, raw)
