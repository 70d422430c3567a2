"""A Hugging Face folder through the whole job, on rows of fixed and of free length."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import mlpack

# Test folders are no packages.
sys.path.insert(0, str(Path(__file__).parent.parent / "sources"))

pytestmark = pytest.mark.slow

QUICK = ("profile_latency.launches=2", "profile_latency.seconds=0.02", "profile_latency.batches=[1]")


def test_a_folder_is_optimized_predicted_and_packaged(place):
    import torch
    from tiny_bert import bert, save

    model = bert()
    folder = save(model, place / "classifier")
    random = np.random.default_rng(0)
    ids = random.integers(1, 60, (600, 12))
    mask = np.ones_like(ids)
    mask[::3, 9:] = 0
    with torch.inference_mode():
        given = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        logits = model(**given).logits
        model.classifier.bias -= logits.mean(0)
        logits = model(**given).logits
    save(model, folder)
    np.savez("rows.npz", input_ids=ids, attention_mask=mask, labels=logits.argmax(1).numpy())
    done = mlpack.optimize(folder, data="rows.npz", settings=QUICK, max_drop="5%")
    this = done.stored.artifact
    assert this.source.kind == "hf_folder"
    assert [each.dims for each in this.model.inputs] == [("batch", "length")] * 2
    assert this.accuracy.baseline == 1.0
    longer = {"input_ids": ids[:4].repeat(2, axis=1), "attention_mask": mask[:4].repeat(2, axis=1)}
    np.savez("longer.npz", **longer)
    answered = np.load(mlpack.predict("classifier", data="longer.npz", out="answers.npz").path)["logits"]
    with torch.inference_mode():
        true = model(**{name: torch.from_numpy(array) for name, array in longer.items()}).logits.numpy()
    np.testing.assert_allclose(answered, true, atol=0.05 * np.abs(true).max())
    assert (mlpack.package("classifier", runtime="fastapi").path / "server").is_dir()


# What random weights answer is of few classes.
@pytest.mark.filterwarnings("ignore:fewer than 5 samples", "ignore:.*of the samples have the label")
@pytest.mark.filterwarnings("ignore:every sample has the label")
@pytest.mark.parametrize(
    ("kind", "metric"),
    [
        ("roberta", "top1"),
        ("answers", "agreement"),
        ("resnet", "top1"),
    ],
)
def test_folders_of_other_kinds_are_optimized_on_arrays(kind, metric, place):
    """For a card that is not here, so that nothing is timed."""
    import tiny_hf

    model = tiny_hf.make(kind)
    model.save_pretrained(place / kind)
    arrays = tiny_hf.rows(kind, 150)
    labels = {"labels": tiny_hf.answers(model, arrays)["logits"].argmax(1)} if metric == "top1" else {}
    np.savez("rows.npz", **arrays, **labels)
    done = mlpack.optimize(place / kind, data="rows.npz", numerics="fp16", target="a100", max_drop="10%")
    this = done.stored.artifact
    assert (this.accuracy.metric, this.accuracy.verdict) in {(metric, "pass"), (metric, "likely")}
    assert this.model.numerics == "fp16"
    assert {each.dims[0] for each in (*this.model.inputs, *this.model.outputs)} == {"batch"}
    assert this.model.largest == ({} if kind in {"vit", "resnet"} else {"length": 40})
