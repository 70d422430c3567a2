"""Weights in four bits by one of onnxruntime's own methods: prints seconds, the peak of memory, and the file made."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from int8_worker import Clock

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx

    Arrays = dict[str, np.ndarray]

INT8_ACTIVATIONS = 4
# They import it when they begin, which is no part of their work.
TORCH_METHODS = {"hqq", "gptq"}


def main() -> None:
    job = json.loads(sys.argv[1])
    place = Path(job["place"]) / f"onnxruntime-{job['method']}-{job['block']}"
    place.mkdir()
    told = quantized(job, place / "model.onnx")
    # Of its own: onnxruntime's bar of progress ends without a new line.
    print(f"\n{json.dumps(told)}")


def quantized(job: dict[str, Any], file: Path) -> dict[str, Any]:
    """As its documentation has it, with int8 activations as mlpack's; tables too, where the method takes them."""
    import onnx
    import onnxruntime.quantization.matmul_nbits_quantizer as library

    block = job["block"]
    configs = {
        "rtn": lambda: library.DefaultWeightOnlyQuantConfig(
            block_size=block, accuracy_level=INT8_ACTIVATIONS, op_types_to_quantize=("MatMul", "Gather")
        ),
        "k_quant": library.KQuantWeightOnlyQuantConfig,
        "hqq": lambda: library.HQQWeightOnlyQuantConfig(block_size=block),
        "gptq": lambda: library.GPTQWeightOnlyQuantConfig(calibration_data_reader=Reader(job), block_size=block),
    }
    if job["method"] in TORCH_METHODS:
        importlib.import_module("torch")
    clock = Clock()
    model = onnx.load(job["graph"])
    matmul_and_add(model)
    made = library.MatMulNBitsQuantizer(
        model, block_size=block, is_symmetric=False, accuracy_level=INT8_ACTIVATIONS,
        algo_config=configs[job["method"]](),
    )  # fmt: skip
    made.process()
    onnx.save(made.model.model, file)
    return clock.told(file)


def matmul_and_add(model: onnx.ModelProto) -> None:
    """Each Gemm of a constant matrix as the two nodes that these quantizers know; what it computes stays."""
    from onnx import helper, numpy_helper

    constants = {each.name: each for each in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        told = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        plain = told.get("alpha", 1.0) == told.get("beta", 1.0) == 1.0 and not told.get("transA", 0)
        if node.op_type != "Gemm" or not plain or node.input[1] not in constants:
            nodes.append(node)
            continue
        matrix, (answer,) = node.input[1], node.output
        if told.get("transB", 0):
            turned = np.ascontiguousarray(numpy_helper.to_array(constants[matrix]).T)
            matrix = f"{node.name}/matrix"
            model.graph.initializer.append(numpy_helper.from_array(turned, matrix))
        product = f"{node.name}/product" if len(node.input) > 2 else answer
        nodes.append(helper.make_node("MatMul", [node.input[0], matrix], [product], f"{node.name}/matmul"))
        if len(node.input) > 2:
            nodes.append(helper.make_node("Add", [product, node.input[2]], [answer], f"{node.name}/add"))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [each for each in model.graph.initializer if each.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


class Reader:
    """Calibration rows as onnxruntime asks for them; it copies its reader, so that this one holds no open iterator."""

    def __init__(self, job: dict[str, Any]) -> None:
        self._inputs = job["inputs"]
        self._left = sorted(Path(job["place"]).glob("calibration-*.npz"))

    def __iter__(self) -> Iterator[Arrays]:
        return iter(self.get_next, None)

    def get_next(self) -> Arrays | None:
        """The next batch."""
        if not self._left:
            return None
        with np.load(self._left.pop(0)) as file:
            return {name: file[name] for name in self._inputs}


if __name__ == "__main__":
    main()
