"""A Hugging Face language model in four bits by gptqmodel or llm-compressor: prints what it took and what came out.

Both write a folder of their own format. What is judged are the values in it, written as a float32 folder that anything
reads; what is timed is the folder as the library itself opens it, in turns with the float model in the same process.
"""

from __future__ import annotations

import copy
import json
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from int8_worker import Clock
from transformers import AutoModelForCausalLM
from transformers.utils.quantization_config import CompressedTensorsConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

TURNS, CALLS, WARM_UP = 30, 10, 5
BATCHES = (1, 8)


def main() -> None:
    job = json.loads(sys.argv[1])
    torch.set_num_threads(job["threads"])
    place = Path(job["place"]) / f"{job['tool']}-{job['block']}"
    made = {"gptqmodel": gptqmodel, "llm-compressor": llm_compressor}[job["tool"]](job, place)
    plain = AutoModelForCausalLM.from_pretrained(job["folder"], dtype=torch.float32).eval()
    values = place / "values"
    with_values(copy.deepcopy(plain), made.weights).save_pretrained(values)
    size = sum(file.stat().st_size for file in (place / "own").glob("*.safetensors"))
    faster = {str(batch): compared(job, plain, made.model, batch) for batch in BATCHES}
    found = {**made.told, "values": str(values), "size_bytes": size, "faster": faster, "runs_as": made.runs_as}
    print(f"\n{json.dumps(found)}")


@dataclass(frozen=True)
class Made:
    """What it took; the weights [out, in] of each linear layer in four bits, in float; and what the library opens."""

    told: dict[str, Any]
    weights: dict[str, torch.Tensor]
    model: torch.nn.Module
    runs_as: str


def gptqmodel(job: dict[str, Any], place: Path) -> Made:
    """As its README has it: GPTQ, symmetric, its own order of columns."""
    from gptqmodel import BACKEND, GPTQModel, QuantizeConfig

    made = GPTQModel.load(job["folder"], QuantizeConfig(bits=4, group_size=job["block"]), device="cpu")
    rows = [{name: row[name].tolist() for name in ("input_ids", "attention_mask")} for row in calibration(job)]
    clock = Clock()
    made.quantize(rows, batch_size=job["batch"])
    told = clock.told(place / "own")
    made.save(str(place / "own"))
    plain = GPTQModel.load(str(place / "own"), device="cpu", backend=BACKEND.TORCH, dtype=torch.float16)
    weights = {name: each.dequantize_weight().float().T for name, each in in_bits(plain.model)}
    opened = GPTQModel.load(str(place / "own"), device="cpu", backend=BACKEND.AUTO).model
    kernels = sorted({type(module).__name__ for _, module in in_bits(opened)})
    return Made(told, weights, opened, ", ".join(kernels))


def in_bits(model: torch.nn.Module) -> list[tuple[str, Any]]:
    """Its layers of gptqmodel's kinds."""
    return [(name, module) for name, module in model.named_modules() if hasattr(module, "qweight")]


def llm_compressor(job: dict[str, Any], place: Path) -> Made:
    """As its examples have it: GPTQ, W4A16, all linear layers but the head."""
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.gptq import GPTQModifier

    weights = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": job["block"]}
    groups: Any = {"group_0": {"targets": ["Linear"], "weights": weights}}
    rows = [{name: row[name].tolist() for name in ("input_ids", "attention_mask")} for row in calibration(job)]
    model = AutoModelForCausalLM.from_pretrained(job["folder"], dtype=torch.float32)
    clock = Clock()
    oneshot(
        model=model, dataset=Dataset.from_list(rows), recipe=GPTQModifier(config_groups=groups, ignore=["lm_head"]),
        num_calibration_samples=len(rows), batch_size=job["batch"], shuffle_calibration_samples=False,
        # Its own choice would cut the texts of a batch to the shortest.
        data_collator="padding",
    )  # fmt: skip
    told = clock.told(place / "own")
    model.save_pretrained(place / "own", save_compressed=True)
    opened = AutoModelForCausalLM.from_pretrained(
        place / "own", dtype=torch.float32, quantization_config=CompressedTensorsConfig(dequantize=True)
    ).eval()
    weights = {
        name: module.weight.detach().clone()
        for name, module in opened.named_modules()
        if isinstance(module, torch.nn.Linear) and hasattr(module, "weight_scale")
    }
    return Made(told, weights, opened, "float32, unpacked when it is opened")


def calibration(job: dict[str, Any]) -> Iterator[dict[str, np.ndarray]]:
    """Row by row, without what only fills up."""
    for path in sorted(Path(job["place"]).glob("calibration-*.npz")):
        with np.load(path) as file:
            for ids, mask in zip(file["input_ids"], file["attention_mask"], strict=True):
                yield {"input_ids": ids[mask == 1], "attention_mask": mask[mask == 1]}


def with_values(plain: torch.nn.Module, weights: dict[str, torch.Tensor]) -> Any:
    """The float model with these weights in place of its own."""
    with torch.no_grad():
        for name, weight in weights.items():
            plain.get_submodule(name).weight.copy_(weight)
    return plain


@torch.inference_mode()
def compared(job: dict[str, Any], plain: torch.nn.Module, quantized: torch.nn.Module, batch: int) -> float:
    """How many times as fast as the float model: the ratio of the medians, in turns."""
    with np.load(min(Path(job["place"]).glob("calibration-*.npz"))) as file:
        rows = {name: torch.from_numpy(file[name][:batch]) for name in ("input_ids", "attention_mask")}
    taken: dict[int, list[float]] = {0: [], 1: []}
    for turn in range(TURNS):
        for which, model in enumerate((plain, quantized)):
            for call in range(WARM_UP + CALLS if turn == 0 else CALLS):
                started = time.perf_counter()
                model(**rows, use_cache=False)
                if turn or call >= WARM_UP:
                    taken[which].append(time.perf_counter() - started)
    return round(statistics.median(taken[0]) / statistics.median(taken[1]), 3)


if __name__ == "__main__":
    main()
