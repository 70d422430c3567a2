"""One calibration by one tool: prints seconds, the peak of memory over what was there before it, and the ranges."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import memory
import numpy as np
import onnx

if TYPE_CHECKING:
    from collections.abc import Iterator

Arrays = dict[str, np.ndarray]


def main() -> None:
    job = json.loads(sys.argv[1])
    tool = {"plain": plain, "mlpack": ours, "onnxruntime": onnxruntime, "nncf": nncf, "modelopt": modelopt}[job["tool"]]
    print(json.dumps(tool(job)))


def batches(job: dict[str, Any]) -> Iterator[Arrays]:
    for index in range(job["count"]):
        with np.load(Path(job["batches"]) / f"batch-{index:04}.npz") as file:
            yield dict(file)


def measured(base: float, started: float) -> dict[str, Any]:
    """What was taken since."""
    return {"seconds": time.perf_counter() - started, "peak_mb": max(0.0, memory.peak() - base)}


def plain(job: dict[str, Any]) -> dict[str, Any]:
    """The inferences alone, on a session with all optimizations."""
    import onnxruntime as ort

    session = ort.InferenceSession(job["graph"])
    session.run(None, next(batches(job)))
    base, started = memory.held(), time.perf_counter()
    for batch in batches(job):
        session.run(None, batch)
    return measured(base, started)


def ours(job: dict[str, Any]) -> dict[str, Any]:
    from onnxruntime.quantization.calibrate import CalibraterBase

    from mlpack.quantization.calibrate import calibrate
    from mlpack.quantization.observers import observer

    base, started = memory.held(), time.perf_counter()
    calibrater = CalibraterBase(Path(job["graph"]), None)
    tensors = sorted(calibrater.select_tensors_to_calibrate(calibrater.model)[0])

    def run(method: str) -> Any:
        make = observer(method, symmetric=False, cut=job["cut"])
        return calibrate(calibrater.model, tensors, batches(job), make, threads=2, cut=True)

    found = run(job["method"])
    told = measured(base, started)
    return {
        **told,
        "tensors": len(tensors),
        "ranges": {each.tensor: (each.low, each.high) for each in found},
        "infinite": [each.tensor for each in found if each.infinite],
        "ends": {each.tensor: (each.low, each.high) for each in run("minmax")},
    }


def onnxruntime(job: dict[str, Any]) -> dict[str, Any]:
    from onnxruntime.quantization.calibrate import CalibrationMethod, create_calibrator

    method, options = {
        "minmax": (CalibrationMethod.MinMax, {}),
        "percentile": (CalibrationMethod.Percentile, {"percentile": job["cut"], "symmetric": False}),
        "entropy": (CalibrationMethod.Entropy, {"num_bins": 2048}),
    }[job["method"]]

    class Reader:
        def __init__(self) -> None:
            self.batches = batches(job)

        def get_next(self) -> Arrays | None:
            return next(self.batches, None)

    base, started = memory.held(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        calibrator = create_calibrator(Path(job["graph"]), None, f"{folder}/shown.onnx", method, extra_options=options)
        calibrator.collect_data(Reader())
        found = calibrator.compute_data()
    told = measured(base, started)
    ranges = {name: [float(np.squeeze(end)) for end in each.range_value] for name, each in found.data.items()}
    return {**told, "ranges": ranges}


def nncf(job: dict[str, Any]) -> dict[str, Any]:
    """Its whole quantization: statistics are not to be had alone. They are most of it."""
    import nncf as library

    model = onnx.load(job["graph"])
    samples = list(batches(job))
    dataset = library.Dataset(samples)
    base, started = memory.held(), time.perf_counter()
    library.quantize(model, dataset, subset_size=len(samples), fast_bias_correction=True)
    return measured(base, started)


def modelopt(job: dict[str, Any]) -> dict[str, Any]:
    """Its whole quantization, whose calibration is onnxruntime's with changes of its own."""
    from modelopt.onnx.quantization import quantize
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rewind()

        def get_next(self) -> Arrays | None:
            return next(self.batches, None)

        def get_first(self) -> Arrays:
            return next(batches(job))

        def rewind(self) -> None:
            self.batches = batches(job)

    method = {"minmax": "max", "entropy": "entropy"}[job["method"]]
    base, started = memory.held(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "model.onnx"
        onnx.save(onnx.load(job["graph"]), graph)
        quantize(
            str(graph), calibration_data_reader=Reader(), calibration_method=method, calibration_eps=["cpu"],
            high_precision_dtype="fp32", output_path=f"{folder}/int8.onnx", log_level="ERROR",
        )  # fmt: skip
    return measured(base, started)


if __name__ == "__main__":
    main()
