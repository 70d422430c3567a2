"""Hugging Face folders whose weights stay on the disk: the same answers and the same files, in a layer's memory."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import torch
from doors import VNNI, answers, relative
from tiny_llama import llama, save

import mlpack.stages.export_on_disk as on_disk
from mlpack.backends.torch_hf import load_hf
from mlpack.backends.torch_hf_on_disk import load_on_disk
from mlpack.backends.torch_loader import load_module
from mlpack.core.external_data import array_of, is_beside
from mlpack.errors import ModelError, StageFailed
from mlpack.stages.compile import Compile
from mlpack.stages.export import Export
from mlpack.stages.quantize import Quantize
from mlpack.stages.quantize_flavours import in_blocks

IDS = np.random.default_rng(0).integers(0, 512, (3, 9))
ROWS = {"input_ids": IDS, "attention_mask": np.ones_like(IDS)}
ROWS["attention_mask"][1, 6:] = 0


@pytest.fixture(scope="module", params=["untied", "tied"])
def folder(request, tmp_path_factory):
    made = save(llama(tied=request.param == "tied"), tmp_path_factory.mktemp("llama") / "folder")
    assert len(list(made.glob("model-*.safetensors"))) > 1, "several shards"
    return made


@pytest.fixture(scope="module")
def steps(folder, tmp_path_factory):
    """`steps("disk")`, `steps("memory")`: the loaded model, and the exported one."""
    from doors import Bench

    bench = Bench(tmp_path_factory.mktemp("steps"))
    made = {}

    def of(weights):
        if weights not in made:
            loaded = bench.load(folder, weights=weights)
            made[weights] = loaded, Export().run(loaded, bench.job()).model
        return made[weights]

    return of


def torch_answers(model):
    module = load_module(model)
    with torch.inference_mode():
        (logits,) = module(*(torch.from_numpy(ROWS[spec.name]) for spec in model.inputs))
    return module, logits.numpy()


def test_it_answers_the_same_from_the_disk_and_keeps_nothing_of_what_it_read(steps):
    (from_disk, _), (in_memory, _) = steps("disk"), steps("memory")
    assert (from_disk.on_disk, in_memory.on_disk) == (True, False)
    assert [str(each) for each in from_disk.inputs] == [str(each) for each in in_memory.inputs]
    assert [(each.name, each.dims) for each in from_disk.outputs] == [("logits", ("batch", "length", 512))]
    (module, ours), (_, theirs) = torch_answers(from_disk), torch_answers(in_memory)
    np.testing.assert_array_equal(ours, theirs)
    large = [each for each in module.parameters() if each.numel() > 65_536]
    assert large
    assert all(each.is_meta for each in large)


def test_a_module_that_fails_leaves_nothing_behind_either(steps):
    module = load_module(steps("disk")[0])
    with pytest.raises(IndexError):
        module(torch.full((1, 4), 100_000), torch.ones(1, 4, dtype=torch.long))
    assert all(each.is_meta for each in module.parameters() if each.numel() > 65_536)


def test_the_graph_refers_to_the_files_and_answers_as_the_module_does(steps):
    loaded, exported = steps("disk")
    shards = sorted((loaded.path / "hf").glob("*.safetensors"))
    linked = sorted((exported.path / "weights").glob("*.safetensors"))
    assert [each.stat().st_ino for each in linked] == [each.stat().st_ino for each in shards], "no second copy"
    constants = onnx.load(exported.entry_path, load_external_data=False).graph.initializer
    assert all(is_beside(each) == (np.prod(each.dims) > 65_536) for each in constants), "the large ones alone"
    assert exported.on_disk
    _, expected = torch_answers(loaded)
    assert relative(expected, answers(exported, ROWS)["logits"]) < 1e-5
    # A runtime that does not know of pieces reads the same file.
    whole = exported.model_copy(update={"on_disk": False})
    assert relative(expected, answers(whole, ROWS)["logits"]) < 1e-5
    assert relative(expected, answers(whole, ROWS, "openvino", precision="float32")["logits"]) < 1e-4


def test_nodes_are_named_by_their_modules(steps):
    graph = onnx.load(steps("disk")[1].entry_path, load_external_data=False).graph
    products = [node.name.partition("/")[0] for node in graph.node if node.op_type == "MatMul"]
    assert {"model.layers.1.mlp.down_proj", "model.layers.0.self_attn.q_proj", "lm_head"} <= set(products)


def test_nothing_serves_it_in_float(steps, bench):
    with pytest.raises(StageFailed, match="too many for this machine's memory") as raised:
        Compile(backend="onnxruntime").run(steps("disk")[1], bench.job())
    assert "--int4" in raised.value.hint


def test_what_would_hold_all_of_it_says_so(steps, bench):
    from mlpack.backends import BACKENDS
    from mlpack.core.backend_options import BackendOptions
    from mlpack.stages.compile_ahead import CompileAhead
    from mlpack.stages.simplify import Simplify

    loaded, exported = steps("disk")
    options = BackendOptions(threads=1)
    assert "stay on the disk" in BACKENDS["openvino"].refusal(exported, VNNI, options)
    assert "stay on the disk" in BACKENDS["torch_compile"].refusal(loaded, VNNI, options)
    half = options.model_copy(update={"precision": "bfloat16"})
    assert "from the disk in float32" in BACKENDS["torch"].refusal(loaded, VNNI, half)
    assert [stage.backend for stage in Compile().propose(exported, VNNI)] == ["onnxruntime"]
    with pytest.raises(StageFailed, match="too many for the memory"):
        CompileAhead().run(loaded, bench.job())
    with pytest.raises(StageFailed, match="would hold all weights"):
        Simplify(fusions="attention").run(exported, bench.job())


@pytest.mark.parametrize("numerics", ["int8", "bf16", "fp16"])
def test_other_numerics_say_that_int4_is_for_it(steps, bench, numerics):
    method = "dynamic" if numerics == "int8" else "cast"
    with pytest.raises(StageFailed, match="stay on the disk"):
        Quantize(numerics=numerics, method=method).run(steps("disk")[1], bench.job())


@pytest.mark.parametrize("method", ["rtn", "hqq"])
def test_int4_from_the_disk_is_what_it_is_from_memory(steps, bench, method):
    (loaded, from_disk), (_, in_memory) = steps("disk"), steps("memory")
    # Activations in float: in int8 a last bit makes another integer.
    (stage,) = Quantize(numerics="int4", method=method, activations="float").propose(from_disk, VNNI)
    ours, theirs = (stage.run(each, bench.job()).model for each in (from_disk, in_memory))
    assert not ours.on_disk
    assert ours.numerics == "int4"
    assert ours.size_bytes < 0.35 * from_disk.size_bytes
    assert packed(ours) == packed(theirs)
    got = answers(ours, ROWS)["logits"]
    np.testing.assert_allclose(got, answers(theirs, ROWS)["logits"], atol=1e-4 * np.abs(got).max())
    _, expected = torch_answers(loaded)
    # Random weights; answers that have nothing to do with one another are off by 1.4.
    assert relative(expected, got) < 0.6


def packed(model):
    """The content of all that is packed."""
    constants = {each.name: each for each in onnx.load(model.entry_path, load_external_data=False).graph.initializer}
    nodes = onnx.load(model.entry_path, load_external_data=False).graph.node
    inputs = [
        node.input[1] if node.op_type == "MatMulNBits" else node.input[0]
        for node in nodes
        if "Bits" in node.op_type or "Quantized" in node.op_type
    ]
    return sorted(array_of(constants[name], model.path).tobytes() for name in inputs)


@pytest.fixture
def normalized(tmp_path):
    """A folder of a classifier whose batch norms have statistics, which is read as its body alone."""
    import transformers

    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        num_channels=3, embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=4, layer_type="basic"
    )
    model = transformers.ResNetForImageClassification(config).eval()
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer.copy_(torch.rand_like(buffer) + 0.5)
    model.save_pretrained(tmp_path / "folder")
    told = json.loads((tmp_path / "folder" / "config.json").read_text())
    (tmp_path / "folder" / "config.json").write_text(json.dumps({**told, "architectures": ["ResNetModel"]}))
    return tmp_path / "folder"


def test_statistics_are_found_under_the_other_prefix_too(normalized):
    ours, theirs = dict(load_on_disk(normalized).named_buffers()), dict(load_hf(normalized).named_buffers())
    assert ours.keys() == theirs.keys()
    assert any("running_var" in name for name in ours)
    for name, buffer in theirs.items():
        torch.testing.assert_close(ours[name], buffer, rtol=0, atol=0)


def test_a_folder_without_its_statistics_is_refused(normalized):
    from safetensors.torch import load_file, save_file

    file = normalized / "model.safetensors"
    tensors = {name: tensor for name, tensor in load_file(file).items() if not name.endswith("running_var")}
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks weights.*running_var"):
        load_on_disk(normalized)


def test_weights_that_are_read_without_their_layer_are_refused(tmp_path):
    """torch's multi-head attention multiplies with the weights of its output layer, which it does not call."""
    import transformers

    config = transformers.SiglipVisionConfig(
        hidden_size=264, intermediate_size=264, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4
    )
    transformers.SiglipVisionModel(config).save_pretrained(tmp_path / "folder")
    module = load_on_disk(tmp_path / "folder").eval()
    with pytest.raises(ModelError, match="without calling it") as refused:
        module(torch.zeros(1, 3, 8, 8))
    assert "--weights memory" in refused.value.hint


def test_gptq_is_refused_because_it_runs_the_float_graph(steps, bench):
    proposed = Quantize(numerics="int4").propose(steps("disk")[1], VNNI)
    assert [each.method for each in proposed] == ["hqq"], "left out where nobody asks for it"
    with pytest.raises(StageFailed, match="gptq"):
        Quantize(numerics="int4", method="gptq").run(steps("disk")[1], bench.job())


def test_a_graph_that_refers_to_another_weight_is_found_out(steps, bench, monkeypatch):
    loaded, _ = steps("disk")

    refer = on_disk._refer

    def swapped(graph, where, out):
        names = [name for name in where if name.endswith("up_proj.weight")]
        first, second = names[:2]
        refer(graph, {**where, first: where[second], second: where[first]}, out)

    monkeypatch.setattr(on_disk, "_refer", swapped)
    with pytest.raises(StageFailed, match="differs from the original"):
        Export().run(loaded, bench.job())


@pytest.mark.slow
def test_memory_does_not_grow_with_the_layers(tmp_path):
    """Six more layers of the same size, each stage in a process of its own."""
    from mlpack.core.recipe import SourceSpec
    from mlpack.engine.job import JobSpec
    from mlpack.engine.process import Launched
    from mlpack.stages.load import Load

    def quiet(text, done=None, total=None):
        del text, done, total

    def run(stage, model, name):
        out = tmp_path / name
        out.mkdir()
        spec = JobSpec(out=out, target=VNNI, threads=1, seed=0)
        arguments = {"stage": stage.name, "options": stage.model_dump(mode="json"), "model": model,
                     "spec": spec.model_dump(mode="json")}  # fmt: skip
        child = Launched("mlpack.engine.job:run_stage", arguments, quiet)
        made = child.finish()["model"]
        return made, child.peak_rss_bytes

    def peaks(folder, label):
        model, found = None, {}
        int4 = in_blocks(Quantize(numerics="int4", method="rtn"), VNNI)
        for stage in (Load.of(SourceSpec(model=str(folder), weights="disk")), Export(), int4):
            model, found[stage.name] = run(stage, model, f"{label}-{stage.name}")
        return found

    def model(layers):
        return save(llama(layers=layers, hidden=1024, vocab=8192), tmp_path / f"{layers}", "50MB")

    def size(layers):
        return 2 * sum(file.stat().st_size for file in (tmp_path / f"{layers}").glob("*.safetensors"))

    few, many = peaks(model(2), "few"), peaks(model(8), "many")
    added = size(8) - size(2)
    for stage, peak in many.items():
        # Half would be the bfloat16 weights themselves, whose pages count where they are mapped; a sixth was seen.
        assert peak - few[stage] < 0.45 * added, (stage, (peak - few[stage]) / added, "of what float32 takes")


@pytest.mark.slow
def test_the_whole_job_from_the_command_line(cli, tmp_path):
    folder = save(llama(), tmp_path / "folder")
    ended = cli(
        "optimize", str(folder), "--int4", "--weights", "disk", "--no-limit", "--calibration", "random:4", "--name",
        "llama", "--backend", "onnxruntime", "--set", "quantize.method=rtn", "--set", "profile_latency.launches=1",
        "--set", "profile_latency.seconds=0.05", "--set", "profile_latency.batches=[1]", "--json",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    made = ended.document
    assert made["model"]["numerics"] == "int4"
    (timed,) = made["latency"]
    assert timed["baseline"] is None
    assert timed["speedup"] is None
    assert "the original's weights lie on the disk" in timed["reason"]
    assert timed["optimized"]["p50"] > 0
    lost = [each for each in made["candidates"] if not each["chosen"]]
    assert any("too many for this machine's memory" in each["why"] for each in lost)
    shown = cli("show", "llama")
    assert shown.code == 0
    report = cli("report", "llama")
    assert report.code == 0, report.err
    assert json.loads(cli("optimize", str(folder), "--weights", "disk", "--int8", "--no-limit", "--calibration",
                          "random:4", "--json").out)["error"]["exit_code"] == 4  # fmt: skip
