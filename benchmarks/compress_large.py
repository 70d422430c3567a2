"""A language model of 3 billion parameters into int4 on a machine that cannot hold it: memory of every process.

The folder is generated layer by layer: a Llama's config.json, and one file of bfloat16 weights for each layer. What is
made of it answers once in a process of its own, and a few of its weights are held to what was generated.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import compress_page
import memory
import numpy as np
import record
import tables

ALLOWED_BYTES = 8_000_000_000
ALLOWED_ERROR = 0.2
HIDDEN, INNER, HEADS, KEYS, VOCABULARY = 3072, 8192, 24, 24, 32_000
LAYERS = 25
_TOKENS = 16
_LOOK_S = 0.1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=LAYERS)
    parser.add_argument("--hidden", type=int, default=HIDDEN, help="a multiple of 128; what is inside grows with it")
    parser.add_argument("--method", default="rtn", choices=["rtn", "hqq"])
    parser.add_argument("--keep", type=Path, help="work in this folder and leave it there")
    parser.add_argument("--answer", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.answer is not None:
        print(json.dumps(answered(given.answer)))
        return 0
    with tempfile.TemporaryDirectory(prefix="compress-large-") as name:
        place = given.keep or Path(name)
        place.mkdir(exist_ok=True)
        folder = place / "model"
        if not (folder / "config.json").is_file():
            print(f"writing {given.layers} layers of width {given.hidden}", flush=True)
            write_folder(folder, given.layers, given.hidden)
        found = measured(place, folder, given.method)
    record.write("compress_large", {"allowed_bytes": ALLOWED_BYTES, "allowed_error": ALLOWED_ERROR, **found})
    tables.render_all()
    print(compress_page.large(record.read("compress_large") or {}))
    return 0 if held(found) else 1


def held(found: dict[str, Any]) -> bool:
    """Whether no process held more than is allowed, and what came out is right."""
    peaks = [found["peak_bytes"], found["answer"]["peak_bytes"]]
    wrong = [each for each in found["weights"] if each["error"] > ALLOWED_ERROR]
    return found["exit_code"] == 0 and max(peaks) <= ALLOWED_BYTES and found["answer"]["finite"] and not wrong


def write_folder(folder: Path, layers: int, hidden: int) -> None:
    """Write config.json, the index, and one file for each layer: what is in memory is a single layer."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    inner, heads = INNER * hidden // HIDDEN, max(1, HEADS * hidden // HIDDEN)
    drawn = torch.Generator().manual_seed(0)

    def matrix(rows: int, columns: int, scale: float = 1.0) -> torch.Tensor:
        return torch.randn(rows, columns, generator=drawn).mul_(scale * columns**-0.5).to(torch.bfloat16)

    def ones() -> torch.Tensor:
        return torch.ones(hidden, dtype=torch.bfloat16)

    # What is added to the residual is smaller the deeper the network is, as in trained ones.
    deep = (2 * layers) ** -0.5
    where: dict[str, str] = {}

    def save(number: int, tensors: dict[str, torch.Tensor]) -> None:
        file = f"model-{number:05}-of-{layers + 2:05}.safetensors"
        save_file(tensors, folder / file, metadata={"format": "pt"})
        where.update(dict.fromkeys(tensors, file))

    save(1, {"model.embed_tokens.weight": matrix(VOCABULARY, hidden)})
    for at in range(layers):
        inside = {
            **{f"self_attn.{part}_proj.weight": matrix(hidden, hidden) for part in "qkv"},
            "self_attn.o_proj.weight": matrix(hidden, hidden, deep),
            "mlp.gate_proj.weight": matrix(inner, hidden),
            "mlp.up_proj.weight": matrix(inner, hidden),
            "mlp.down_proj.weight": matrix(hidden, inner, deep),
            "input_layernorm.weight": ones(),
            "post_attention_layernorm.weight": ones(),
        }
        save(at + 2, {f"model.layers.{at}.{name}": tensor for name, tensor in inside.items()})
    save(layers + 2, {"model.norm.weight": ones(), "lm_head.weight": matrix(VOCABULARY, hidden)})
    index = {"metadata": {}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden, "intermediate_size": inner,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": heads,
        "vocab_size": VOCABULARY, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "rope_theta": 10_000.0,
        "hidden_act": "silu", "tie_word_embeddings": False, "torch_dtype": "bfloat16",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def measured(place: Path, folder: Path, method: str) -> dict[str, Any]:
    """The whole job from an empty cache, what its processes held, and what came out."""
    cache, store = place / "cache", place / "store"
    words = [
        "optimize", str(folder), "--int4", "--weights", "disk", "--no-limit", "--calibration", "random:2",
        "--name", "large", "--store", str(store), "--backend", "onnxruntime", "--set", f"quantize.method={method}",
        "--set", "check_accuracy.batch=1", "--set", "golden.samples=2", "--set", "profile_latency.batches=[1]",
        "--set", "profile_latency.launches=1", "--set", "profile_latency.components=false",
    ]  # fmt: skip
    watch = Watch(f"MLPACK_CACHE={cache}\0")
    with watch:
        ended = record.mlpack_json(words, cache)
    stages = [
        {
            "stage": stage["stage"],
            "what": " ".join(str(stage["options"][each]) for each in ("numerics", "part") if each in stage["options"]),
            "seconds": round(stage["seconds"], 1),
            "peak_rss_bytes": stage["peak_rss_bytes"],
        }
        for stage in record.finished_stages(cache)
    ]
    if ended.code:
        raise SystemExit(f"optimize ended with {ended.code}: {ended.error}")
    artifact = Path(ended.document["path"])
    answer = subprocess.run(
        [sys.executable, __file__, "--answer", str(artifact)], stdout=subprocess.PIPE, text=True, check=True
    )
    return {
        "exit_code": ended.code,
        "method": method,
        "parameters": sum(_count(file) for file in folder.glob("*.safetensors")),
        "folder_bytes": sum(file.stat().st_size for file in folder.glob("*.safetensors")),
        "artifact_bytes": ended.document["model"]["size_bytes"],
        "seconds": round(ended.seconds, 1),
        "peak_bytes": max(watch.largest, *(stage["peak_rss_bytes"] for stage in stages)),
        "together_bytes": watch.together,
        "stages": stages,
        "answer": json.loads(answer.stdout),
        "weights": compared(artifact / "model", folder),
    }


def _count(file: Path) -> int:
    from safetensors import safe_open

    with safe_open(file, framework="np") as opened:
        return sum(int(np.prod(opened.get_slice(name).get_shape())) for name in opened.keys())  # noqa: SIM118 - no dict


class Watch:
    """Looks at the processes with this in their environment: the most that one held, and the most at one time."""

    def __init__(self, marked: str) -> None:
        self.largest = self.together = 0
        self._marked = marked
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(_LOOK_S):
            now = 0
            for folder in Path("/proc").glob("[0-9]*"):
                # A process may end while it is looked at.
                with contextlib.suppress(OSError):
                    if self._marked in (folder / "environ").read_text(errors="replace"):
                        told = dict(re.findall(r"(VmHWM|VmRSS):\s+(\d+)", (folder / "status").read_text()))
                        self.largest = max(self.largest, int(told.get("VmHWM", 0)) * 1024)
                        now += int(told.get("VmRSS", 0)) * 1024
            self.together = max(self.together, now)


def answered(artifact: Path) -> dict[str, Any]:
    """One forward of the model in ONNX Runtime, in this process alone."""
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    started = time.perf_counter()
    session = ort.InferenceSession(str(artifact / "model" / "model.onnx"), settings, providers=["CPUExecutionProvider"])
    opened = time.perf_counter()
    ids = np.random.default_rng(0).integers(0, VOCABULARY, (1, _TOKENS))
    given = {each.name: ids if each.name == "input_ids" else np.ones_like(ids) for each in session.get_inputs()}
    (logits,) = session.run(None, given)
    return {
        "open_seconds": round(opened - started, 2),
        "seconds": round(time.perf_counter() - opened, 2),
        "tokens": _TOKENS,
        "finite": bool(np.isfinite(logits).all()) and float(np.std(logits)) > 0,
        "peak_bytes": int(memory.peak() * 1e6),
    }


def compared(model: Path, folder: Path) -> list[dict[str, Any]]:
    """Products of a few layers: the weight that they multiply by beside the one that was generated, relative L2."""
    import onnx
    from safetensors import safe_open

    from mlpack.core.external_data import array_of
    from mlpack.quantization.blocks import Form, Packed, dequantize_blocks

    where = json.loads((folder / "model.safetensors.index.json").read_text(encoding="utf-8"))["weight_map"]
    graph = onnx.load(model / "model.onnx", load_external_data=False).graph
    constants = {each.name: each for each in graph.initializer}
    by_module = {node.name.partition("/")[0]: node for node in graph.node if node.op_type == "MatMulNBits"}
    layers = sorted({int(name.split(".")[2]) for name in by_module if name.startswith("model.layers.")})
    chosen = sorted({layers[0], layers[len(layers) // 2], layers[-1]})
    names = [f"model.layers.{at}.{part}" for at in chosen for part in ("self_attn.q_proj", "mlp.down_proj")]
    rows = []
    for name in (*names, "lm_head"):
        node = by_module[name]
        told = {each.name: each.i for each in node.attribute}
        packed, scales, *zeros = (array_of(constants[each], model) for each in node.input[1:4] if each in constants)
        count, blocks = told["N"], -(-told["K"] // told["block_size"])
        kept = Packed(packed.reshape(count, blocks, -1), scales.reshape(count, blocks), zeros[0] if zeros else None)
        got = dequantize_blocks(kept, told["K"], Form(told["block_size"], not zeros, told["bits"])).T
        with safe_open(folder / where[f"{name}.weight"], framework="pt") as opened:
            expected = opened.get_tensor(f"{name}.weight").float().numpy()
        error = float(np.linalg.norm(expected - got) / np.linalg.norm(expected))
        rows.append({"module": name, "bits": told["bits"], "error": round(error, 4)})
    return rows


if __name__ == "__main__":
    sys.exit(main())
