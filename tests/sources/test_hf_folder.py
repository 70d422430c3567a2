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


def test_models_that_write_one_text_for_another_come_later(folder, tmp_path):
    error = refused(changed(folder, tmp_path, architectures=["T5ForConditionalGeneration"]))
    assert "models that write one text for another come with a later version" in error.message


def test_a_language_model_answers_with_the_logits_of_every_token(tmp_path, load):
    import transformers

    config = transformers.GPT2Config(n_layer=1, n_head=2, n_embd=16, vocab_size=50)
    model, job = load(save(transformers.GPT2LMHeadModel(config), tmp_path / "gpt"))
    assert [(each.name, each.dims) for each in model.outputs] == [("logits", ("batch", "length", 50))]
    assert any("the logits of every token" in line for line in job.said)


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


@pytest.fixture
def parts(tmp_path):
    """A folder with its weights in several files, and these."""
    place = tmp_path / "parts"
    bert().save_pretrained(place, max_shard_size="20KB")
    return place, sorted(place.glob("model-*.safetensors"))


@pytest.mark.parametrize("left", [0, 5, 40, 0.5, -1])
def test_a_file_that_is_cut_off_is_refused_before_anything_is_loaded(parts, left):
    place, files = parts
    content = files[1].read_bytes()
    files[1].write_bytes(content[: int(len(content) * left) if isinstance(left, float) else left])
    error = refused(place)
    assert files[1].name in error.message
    assert error.hint == "copy or download it again"


def test_a_file_that_is_another_one_is_refused(parts):
    place, files = parts
    files[1].write_bytes(files[0].read_bytes())
    assert f"{files[1].name} lacks" in refused(place).message


def test_a_file_that_is_not_there_is_exit_2(parts, cli):
    place, files = parts
    files[1].unlink()
    ended = cli("optimize", str(place), "--no-limit", "--json")
    assert ended.code == 2
    assert files[1].name in ended.document["error"]["message"]
    assert ended.document["error"]["hint"] == "copy or download it again"


def test_weights_are_read_from_the_disk_where_they_are_too_many_for_the_memory(folder, load, monkeypatch):
    import psutil

    assert not load(folder)[0].on_disk
    count = sum(each.numel() for each in bert().parameters())
    # Three times the weights in float32: the module's, a runtime's, what its kernels pack.
    for total, on_disk in ((12 * count + 1, False), (12 * count - 1, True)):
        memory = psutil.virtual_memory()._replace(total=total)
        monkeypatch.setattr(psutil, "virtual_memory", lambda memory=memory: memory)
        model, job = load(folder)
        assert model.on_disk == on_disk
        assert any("read from the disk as they are needed" in line for line in job.said) == on_disk


def test_only_folders_have_weights_on_the_disk(tmp_path):
    from mlpack.errors import UsageError
    from mlpack.stages.load import Load

    torch.save({"a": torch.zeros(1)}, tmp_path / "net.pt")
    (tmp_path / "net.py").write_text("import torch\n\ndef net():\n    return torch.nn.Linear(1, 1)\n")
    spec = SourceSpec(model=str(tmp_path / "net.pt"), factory=f"{tmp_path / 'net.py'}:net", weights="disk")
    with pytest.raises(UsageError, match="--weights disk is for Hugging Face folders"):
        Load.of(spec)


@pytest.mark.parametrize("weights", ["memory", "disk"])
def test_a_shape_that_is_not_the_configs_is_refused(folder, tmp_path, load, weights):
    with pytest.raises(ModelError):
        load(changed(folder, tmp_path, intermediate_size=48), weights=weights)


def test_missing_weights_are_refused_because_the_answers_would_be_random(tmp_path, load):
    folder = save(bert().base_model, tmp_path / "headless")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["BertForSequenceClassification"]}))
    for weights in ("memory", "disk"):
        with pytest.raises(ModelError, match="lacks weights that BertForSequenceClassification has: classifier"):
            load(folder, weights=weights)


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
