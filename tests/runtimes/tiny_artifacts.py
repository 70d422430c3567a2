"""Builds small real artifacts by hand: an ONNX model, its golden samples and its artifact.json."""

from __future__ import annotations

import json
from importlib import metadata
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mlpack.core.artifact import Artifact, Stored
from mlpack.core.model import TensorSpec, sha256_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DTYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "bool": TensorProto.BOOL,
          "float16": TensorProto.FLOAT16, "uint8": TensorProto.UINT8}  # fmt: skip
CREATED = "2026-11-22T04:00:00+00:00"
SAMPLES = 6


def graph(kind: str, batch: int | str = "batch") -> tuple[onnx.ModelProto, list[TensorSpec], list[TensorSpec]]:
    """mlp: [batch, 8] -> logits [batch, 3], score [batch]. text: ids, mask [batch, tokens] -> [batch, 4]."""
    random = np.random.default_rng(3)

    def weight(name, *shape):
        return numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name)

    if kind == "mlp":
        inputs = [TensorSpec(name="features", dtype="float32", dims=(batch, 8))]
        outputs = [
            TensorSpec(name="logits", dtype="float32", dims=(batch, 3)),
            TensorSpec(name="score", dtype="float32", dims=(batch,)),
        ]
        nodes = [
            helper.make_node("Gemm", ["features", "w1", "b1"], ["h"]),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("Gemm", ["r", "w2", "b2"], ["logits"]),
            helper.make_node("ReduceMax", ["logits", "axis"], ["score"], keepdims=0),
        ]
        weights = [weight("w1", 8, 16), weight("b1", 16), weight("w2", 16, 3), weight("b2", 3),
                   numpy_helper.from_array(np.array([1]), "axis")]  # fmt: skip
    elif kind == "text":
        inputs = [
            TensorSpec(name="ids", dtype="int64", dims=(batch, "tokens")),
            TensorSpec(name="mask", dtype="bool", dims=(batch, "tokens")),
        ]
        outputs = [TensorSpec(name="embedding", dtype="float32", dims=(batch, 4))]
        nodes = [
            helper.make_node("Gather", ["table", "ids"], ["vectors"]),
            helper.make_node("Cast", ["mask"], ["ones"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["ones", "last"], ["wide"]),
            helper.make_node("Mul", ["vectors", "wide"], ["kept"]),
            helper.make_node("ReduceSum", ["kept", "axis"], ["embedding"], keepdims=0),
        ]
        weights = [weight("table", 50, 4), numpy_helper.from_array(np.array([1]), "axis"),
                   numpy_helper.from_array(np.array([-1]), "last")]  # fmt: skip
    else:
        # A loop of many large multiplications: a model that takes a good part of a second.
        inputs = [TensorSpec(name="features", dtype="float32", dims=(batch, 700))]
        outputs = [TensorSpec(name="result", dtype="float32", dims=(batch, 700))]
        nodes = []
        source = "features"
        for turn in range(300):
            target = "result" if turn == 299 else f"h{turn}"
            nodes.append(helper.make_node("MatMul", [source, "w"], [f"m{turn}"]))
            nodes.append(helper.make_node("Tanh", [f"m{turn}"], [target]))
            source = target
        weights = [weight("w", 700, 700)]
    made = helper.make_graph(
        nodes,
        kind,
        [helper.make_tensor_value_info(each.name, DTYPES[each.dtype], list(each.dims)) for each in inputs],
        [helper.make_tensor_value_info(each.name, DTYPES[each.dtype], list(each.dims)) for each in outputs],
        weights,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model, inputs, outputs


def samples(kind: str) -> dict[str, np.ndarray]:
    """Inputs of six samples."""
    random = np.random.default_rng(5)
    if kind == "text":
        return {
            "ids": random.integers(0, 50, (SAMPLES, 7)),
            "mask": random.random((SAMPLES, 7)) < 0.8,
        }
    width = 8 if kind == "mlp" else 700
    return {"features": random.normal(size=(SAMPLES, width)).astype(np.float32)}


def make(
    folder: Path,
    kind: str = "mlp",
    batch: int | str = "batch",
    version: int = 1,
    kept: dict[str, np.ndarray] | None = None,
    group: np.ndarray | None = None,
    built: tuple[onnx.ModelProto, list[TensorSpec], list[TensorSpec]] | None = None,
    given: dict[str, np.ndarray] | None = None,
    beside: Callable[[Path], None] | None = None,
    **changes: object,
) -> Stored:
    """A stored artifact in `folder`/NAME/VERSION. `changes` replace fields: `accuracy__batch_dependent=True`.

    `built` and `given` are another graph and its inputs; `beside` writes more files into the artifact.
    `kept` has what the checks kept of the original (`baseline`) and of the model (`optimized`): a score per sample.
    """
    import onnxruntime as ort

    model, inputs, outputs = built or graph(kind, batch)
    name = f"tiny-{kind}"
    place = folder / name / str(version)
    (place / "model").mkdir(parents=True)
    (place / "golden").mkdir()
    onnx.save(model, place / "model" / "model.onnx", save_as_external_data=True, location="model.onnx.data",
              size_threshold=64)  # fmt: skip
    given = samples(kind) if given is None else given
    session = ort.InferenceSession(str(place / "model" / "model.onnx"), providers=["CPUExecutionProvider"])
    step = batch if isinstance(batch, int) else 1
    parts = [
        session.run(None, {key: array[first : first + step] for key, array in given.items()})
        for first in range(0, SAMPLES, step)
    ]
    answers = {
        spec.name: np.concatenate(arrays) for spec, arrays in zip(outputs, zip(*parts, strict=True), strict=True)
    }
    np.savez(place / "golden" / "inputs.npz", **given)
    np.savez(place / "golden" / "outputs.npz", **answers)
    if beside:
        beside(place)
    for whose, score in (kept or {}).items():
        (place / "reports").mkdir(exist_ok=True)
        beside = {"rows": np.arange(len(score)), **({} if group is None else {"group": group})}
        np.savez(place / "reports" / f"accuracy-{whose}-kept.npz", **{"kept/score": score, **beside})
    files = {path.relative_to(place).as_posix(): sha256_of(path) for path in sorted(place.rglob("*")) if path.is_file()}
    document = {
        "schema": 1,
        "name": name,
        "version": version,
        "status": "final",
        "created": CREATED,
        "mlpack_version": "0.1.0",
        "source": {"path": "model.pt2", "sha256": "0" * 64, "kind": "exported program"},
        "target": {"name": "cpu", "kind": "cpu"},
        "model": {
            "path": "model",
            "entry": "model.onnx",
            "format": "onnx",
            "backend": "onnxruntime",
            "backend_options": {"threads": 1},
            "numerics": "fp32",
            "numerics_share": 1.0,
            "quantization": None,
            "digest": "1" * 64,
            "inputs": [spec.model_dump() for spec in inputs],
            "outputs": [spec.model_dump() for spec in outputs],
            "size_bytes": 1000,
        },
        "baseline": {"size_bytes": 2000},
        "lineage": [],
        "accuracy": {
            "metric": "top1",
            "backend": "onnxruntime",
            "batch": 32,
            "batch_dependent": False,
            "samples": 1000,
            "baseline": 0.91,
            "optimized": 0.908,
            "drop": 0.002,
            "drop_ci90": [-0.001, 0.005],
            "limit": 0.0091,
            "limit_text": "1%",
            "verdict": "pass",
        },
        "latency": [
            {"batch": size, "threads": 1, "device": "cpu", "backend": "onnxruntime",
             "baseline": {"p50": 2.0 * size, "p99": None, "n": 100, "launches": 5},
             "optimized": {"p50": 0.5 * size, "p99": None, "n": 100, "launches": 5},
             "speedup": 4.0, "speedup_ci95": [3.8, 4.2]}
            for size in (1, 4)
        ],
        "golden": {
            "tolerance": {spec.name: {"absolute": 1e-4, "relative": 1e-5} for spec in outputs},
            "samples": SAMPLES,
            "batch": step,
        },
        "environment": {
            "python": "3.11",
            "libraries": {each: metadata.version(each) for each in ("onnxruntime", "openvino", "numpy")},
        },
        "files": files,
    }  # fmt: skip
    for key, value in changes.items():
        part = document
        *route, last = key.split("__")
        for step_name in route:
            part = part[step_name]
        part[last] = value
    artifact = Artifact.model_validate(document)
    artifact = artifact.model_copy(update={"digest": artifact.identity()})
    (place / "artifact.json").write_text(json.dumps(artifact.model_dump(mode="json", by_alias=True)))
    return Stored(path=place, artifact=artifact)
