"""The same work as one `mlpack optimize --int8`, as a person would script it: one process, no mlpack.

`python bare_script.py spec.json`, which benchmarks/overhead.py writes. Exports, simplifies, quantizes, opens and
scores; writes bare.json with the scores and the seconds of each step.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import onnxsim
import openvino as ov
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

Arrays = dict[str, np.ndarray]
Run = Callable[[Arrays], np.ndarray]
SIDE_BY_SIDE = 32
WEIGHTED = ["Conv", "ConvTranspose", "MatMul", "Gemm"]
RECURRENT_TOO = ["MatMul", "Gemm", "Gather", "LSTM", "GRU", "Attention"]
TYPES = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}
SECONDS: dict[str, float] = {}


@contextmanager
def step(name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    SECONDS[name] = round(SECONDS.get(name, 0.0) + time.perf_counter() - started, 2)


def main() -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    spec = json.loads(Path(sys.argv[1]).read_text())
    folder = Path(spec["folder"])
    rows = dict(np.load(spec["rows"]))
    arrays = dict(np.load(spec["data"]))
    labels = arrays.pop("labels")
    arrays.pop("cluster", None)
    torch.set_num_threads(spec["threads"])
    with step("load"):
        module = load(Path(spec["code"]))
    calibration = {name: array[rows["calibration"]] for name, array in arrays.items()}
    files = {"fp32": folder / "bare-fp32.onnx"}
    with step("export"):
        export(module, {name: array[:SIDE_BY_SIDE] for name, array in calibration.items()}, files["fp32"])
    with step("simplify"):
        simplify(files["fp32"])
    for options in spec["quantize"]:
        files[options["flavour"]] = folder / f"bare-{options['flavour']}.onnx"
        with step("quantize"):
            quantize(files["fp32"], files[options["flavour"]], options, spec["rules"], calibration)
    opened: dict[tuple[str, str], Run] = {("original", "torch"): eager(module)}
    with step("open"):
        for each in spec["open"]:
            run = open_file(files[each["flavour"]], each["backend"], spec["threads"])
            run({name: array[:1] for name, array in calibration.items()})
            opened[each["flavour"], each["backend"]] = run
    scores, took = [], []
    with step("evaluate"):
        for each in spec["evaluate"]:
            part = {name: array[rows[each["part"]]] for name, array in arrays.items()}
            wanted = labels[rows[each["part"]]]
            started = time.perf_counter()
            scores.append(evaluate(opened[each["flavour"], each["backend"]], part, wanted, each["batch"]))
            took.append(round(time.perf_counter() - started, 2))
    (folder / "bare.json").write_text(json.dumps({"scores": scores, "took": took, "seconds": SECONDS}))


def load(code: Path) -> torch.nn.Module:
    found = importlib.util.spec_from_file_location("sample_model", code)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    model: torch.nn.Module = module.model()
    return model


def export(module: torch.nn.Module, example: Arrays, path: Path) -> None:
    shapes = {name: {0: "batch"} for name in example}
    with redirect_stdout(None):
        program = torch.onnx.export(
            module,
            kwargs={name: torch.from_numpy(array) for name, array in example.items()},
            dynamo=True,
            opset_version=20,
            input_names=list(example),
            dynamic_shapes=shapes,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    # Stale shapes of initializers make ONNX Runtime's quantizer fail.
    del proto.graph.value_info[:]
    onnx.save(proto, path)


def simplify(path: Path) -> None:
    before = onnx.load(path)
    after, same = onnxsim.simplify(before)
    if same and len(after.graph.node) < len(before.graph.node):
        del after.graph.value_info[:]
        onnx.save(after, path)


class Reader(CalibrationDataReader):
    """The calibration rows in batches."""

    def __init__(self, rows: Arrays, samples: int, batch: int) -> None:
        most = min(samples, len(next(iter(rows.values()))))
        self.batches = iter(
            {name: array[start : min(start + batch, most)] for name, array in rows.items()}
            for start in range(0, most, batch)
        )

    def get_next(self) -> Arrays | None:
        """The next batch; None after the last."""
        return next(self.batches, None)


def quantize(source: Path, path: Path, options: dict[str, Any], rules: dict[str, Any], calibration: Arrays) -> None:
    assert options["numerics"] == "int8", options
    prepared = path.with_suffix(".prepared.onnx")
    quant_pre_process(source, prepared)
    kind = onnx.TensorProto.FLOAT
    if options["method"] == "dynamic":
        quantize_dynamic(
            prepared,
            path,
            op_types_to_quantize=RECURRENT_TOO,
            per_channel=options["per_channel"],
            reduce_range=rules["reduce_range"],
            weight_type=QuantType.QInt8,
            extra_options={"DefaultTensorType": kind, "MatMulConstBOnly": True},
        )
        return
    extra: dict[str, Any] = {
        "ActivationSymmetric": rules["symmetric_activations"],
        "WeightSymmetric": True,
        "DefaultTensorType": kind,
        "MatMulConstBOnly": options["operators"] == "weighted",
    }
    if rules["explicit_weights"]:
        extra |= {"AddQDQPairToWeight": True, "QuantizeBias": False, "DedicatedQDQPair": True}
    # An attention mask adds the lowest float: its range would wreck the graph.
    infinite = set(options["infinite"])
    nodes = onnx.load(prepared, load_external_data=False).graph.node
    quantize_static(
        prepared,
        path,
        Reader(calibration, options["samples"], options["batch"]),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=WEIGHTED if options["operators"] == "weighted" else None,
        nodes_to_exclude=[node.name for node in nodes if infinite.intersection([*node.input, *node.output])],
        per_channel=options["per_channel"],
        reduce_range=rules["reduce_range"],
        activation_type=TYPES[rules["activation"]],
        weight_type=QuantType.QInt8,
        extra_options=extra,
    )


def eager(module: torch.nn.Module) -> Run:
    def run(inputs: Arrays) -> np.ndarray:
        with torch.inference_mode():
            answer: torch.Tensor = module(**{name: torch.from_numpy(array) for name, array in inputs.items()})
        return answer.numpy()

    return run


def open_file(path: Path, backend: str, threads: int) -> Run:
    if backend == "openvino":
        properties = {
            "INFERENCE_PRECISION_HINT": ov.Type.f32,
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
        }
        request = ov.Core().compile_model(str(path), "CPU", properties).create_infer_request()
        return lambda inputs: np.array(request.infer(inputs)[0])
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 4
    session = ort.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, inputs)[0]


def evaluate(run: Run, inputs: Arrays, labels: np.ndarray, batch: int) -> float:
    """Top-1; beside it the same samples alone and batched, which tells models that depend on batch mates."""
    first = {name: array[: min(batch, SIDE_BY_SIDE)] for name, array in inputs.items()}
    if batch > 1:
        together = run(first)
        count = len(together)
        alone = [run({name: array[row : row + 1] for name, array in first.items()}) for row in range(count)]
        np.linalg.norm(together - np.concatenate(alone))
    right = []
    for start in range(0, len(labels), batch):
        answers = run({name: array[start : start + batch] for name, array in inputs.items()})
        assert np.isfinite(answers).all()
        right.append(answers.argmax(1) == labels[start : start + batch])
    return float(np.concatenate(right).mean())


if __name__ == "__main__":
    main()
