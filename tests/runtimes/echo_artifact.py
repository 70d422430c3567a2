"""A model that gives back what it takes: one input and one output of every datatype that servers carry."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper
from tiny_artifacts import SAMPLES

from mlpack.core.model import TensorSpec
from mlpack.runtimes.package_files import DATATYPES

WIDTH = 3


def echo() -> dict[str, object]:
    """What `make` and `packaged` take as changes."""
    inputs = [TensorSpec(name=f"in_{dtype}", dtype=dtype, dims=("batch", WIDTH)) for dtype in DATATYPES]
    outputs = [TensorSpec(name=f"out_{dtype}", dtype=dtype, dims=("batch", WIDTH)) for dtype in DATATYPES]
    sides = [
        [
            helper.make_tensor_value_info(spec.name, helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype)), spec.dims)
            for spec in side
        ]
        for side in (inputs, outputs)
    ]
    nodes = [helper.make_node("Identity", [f"in_{dtype}"], [f"out_{dtype}"]) for dtype in DATATYPES]
    made = helper.make_graph(nodes, "echo", *sides)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return {"built": (model, inputs, outputs), "given": {spec.name: values(spec.dtype, SAMPLES) for spec in inputs}}


def values(dtype: str, rows: int) -> np.ndarray:
    """The extremes of a dtype, and what lies between."""
    kind = np.dtype(dtype)
    random = np.random.default_rng(rows)
    if kind.kind == "b":
        return random.random((rows, WIDTH)) < 0.5
    if kind.kind == "f":
        drawn = random.normal(size=(rows, WIDTH)).astype(kind)
        drawn[0] = np.finfo(kind).max, np.finfo(kind).min, np.finfo(kind).smallest_subnormal
        return drawn
    bounds = np.iinfo(kind)
    drawn = random.integers(bounds.min, bounds.max, (rows, WIDTH), dtype=kind, endpoint=True)
    drawn[0] = bounds.min, bounds.max, 1
    return drawn
