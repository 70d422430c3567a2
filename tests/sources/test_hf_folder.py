"""Hugging Face folders: read offline by transformers, answers as transformers gives them, refusals that say why."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tiny_bert import bert, save

from mlpack.backends.torch_loader import load_module
from mlpack.core.recipe import SourceSpec
from mlpack.errors import ModelError
from mlpack.sources.detect import detect
from mlpack.sources.hf_folder import usual_inputs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(bert(), tmp_path_factory.mktemp("bert"))


def refused(folder, **spec):
    with pytest.raises(ModelError) as raised:
        detect(SourceSpec(model=str(folder), **spec))
    return raised.value


def changed(folder, tmp_path, **changes):
    """The folder again, with another config.json."""
    again = tmp_path / "again"
    again.mkdir()
    for file in folder.iterdir():
        (again / file.name).write_bytes(file.read_bytes())
    config = json.loads((again / "config.json").read_text())
    (again / "config.json").write_text(json.dumps({**config, **changes}))
    return again


def test_a_folder_is_known_by_its_content(folder, tmp_path):
    found = detect(SourceSpec(model=str(folder)))
    assert (found.kind, found.container) == ("hf_folder", "hf")
    assert detect(SourceSpec(model=str(changed(folder, tmp_path)))).sha256 != found.sha256, "a config written otherwise"
    (folder / "README.md").write_text("anything")
    assert detect(SourceSpec(model=str(folder))).sha256 == found.sha256


def test_it_is_loaded_with_batch_and_length_free_and_answers_as_transformers_does(folder, load):
    import transformers

    model, _ = load(folder)
    assert [str(each) for each in model.inputs] == [
        "input_ids=int64:batch,length", "attention_mask=int64:batch,length", "token_type_ids=int64:batch,length",
    ]  # fmt: skip
    assert [(each.name, each.dims) for each in model.outputs] == [("logits", ("batch", 3))]
    own = transformers.AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True).eval()
    ids = torch.randint(0, 50, (5, 11))
    mask = torch.ones_like(ids)
    mask[:, 7:] = 0
    types = torch.zeros_like(ids)
    with torch.inference_mode():
        (ours,) = load_module(model)(ids, mask, types)
        theirs = own(input_ids=ids, attention_mask=mask, token_type_ids=types).logits
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=1e-5)


def test_weights_in_half_precision_are_widened_and_it_is_said(tmp_path, load):
    model, job = load(save(bert().half(), tmp_path / "half"))
    assert model.numerics == "fp32"
    assert any("float16: widened to float32" in line for line in job.said)


def test_generative_models_come_later(tmp_path):
    import transformers

    config = transformers.GPT2Config(n_layer=1, n_head=2, n_embd=16, vocab_size=50)
    error = refused(save(transformers.GPT2LMHeadModel(config), tmp_path / "gpt"))
    assert "generative models come with a later version" in error.message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"auto_map": {"AutoModel": "own.Model"}}, "needs code of its own"),
        ({"model_type": None}, "says no model_type"),
        ({"quantization_config": {"bits": 4}}, "is quantized already"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_loaded(folder, tmp_path, changes, words):
    assert words in refused(changed(folder, tmp_path, **changes)).message


def test_a_factory_for_a_whole_model_is_refused(folder):
    assert "needs no factory" in refused(folder, factory="model.py:net").message


def test_weights_in_a_pickle_alone_are_not_read(folder, tmp_path):
    again = changed(folder, tmp_path)
    (again / "model.safetensors").unlink()
    assert "no weights" in refused(again).message
    torch.save({}, again / "pytorch_model.bin")
    error = refused(again)
    assert "may run code" in error.message
    assert "save_pretrained" in error.hint


def test_a_pickle_beside_safetensors_is_named_and_not_read(folder, tmp_path, load):
    again = changed(folder, tmp_path)
    (again / "pytorch_model.bin").write_bytes(b"not even a pickle")
    _, job = load(again)
    assert any("pytorch_model.bin is not read" in line for line in job.said)


def test_weights_in_several_files_are_read_and_none_may_lie_elsewhere(tmp_path, load):
    parts = tmp_path / "parts"
    bert().save_pretrained(parts, max_shard_size="20KB")
    assert len(list(parts.glob("model-*.safetensors"))) > 1
    assert load(parts)[0].outputs[0].dims == ("batch", 3)
    index = parts / "model.safetensors.index.json"
    told = json.loads(index.read_text())
    told["weight_map"] = dict.fromkeys(told["weight_map"], "../elsewhere.safetensors")
    index.write_text(json.dumps(told))
    assert "not there" in refused(parts).message


def test_missing_weights_are_refused_because_the_answers_would_be_random(tmp_path, load):
    folder = save(bert().base_model, tmp_path / "headless")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["BertForSequenceClassification"]}))
    with pytest.raises(ModelError, match="lacks weights that BertForSequenceClassification has: classifier"):
        load(folder)


def test_an_architecture_that_this_transformers_does_not_know(folder, tmp_path, load):
    with pytest.raises(ModelError, match="knows no architecture 'BertForTelepathy'"):
        load(changed(folder, tmp_path, architectures=["BertForTelepathy"]))


@pytest.mark.parametrize(
    ("config", "inputs"),
    [
        ({"vocab_size": 9}, ("input_ids=int64:batch,length", "attention_mask=int64:batch,length")),
        ({"image_size": 32, "num_channels": 1}, ("pixel_values=float32:batch,1,32,32",)),
        ({"image_size": [16, 24]}, ("pixel_values=float32:batch,3,16,24",)),
        ({"num_channels": 3}, ("pixel_values=float32:batch,3,height,width",)),
        ({}, ()),
    ],
)
def test_usual_inputs_follow_the_config(config, inputs):
    assert usual_inputs(config) == inputs
