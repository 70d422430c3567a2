"""Int8 of one graph by one tool: prints seconds, the peak of memory over what was there before, and the file made."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import memory
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

Arrays = dict[str, np.ndarray]
LABELS = "/labels"
CALIBRATION_BATCH = 16


def main() -> None:
    job = json.loads(sys.argv[1])
    makers = {
        "onnxruntime static": onnxruntime_static,
        "onnxruntime dynamic": onnxruntime_dynamic,
        "nncf": nncf,
        "nncf accuracy control": nncf_with_accuracy,
        "olive search": olive,
    }
    place = Path(job["place"]) / job["tool"].replace(" ", "-")
    place.mkdir()
    print(json.dumps(makers[job["tool"]](job, place)))


def batches(job: dict[str, Any], part: str) -> Iterator[Arrays]:
    for path in sorted(Path(job["place"]).glob(f"{part}-*.npz")):
        with np.load(path) as file:
            yield dict(file)


def feeds(job: dict[str, Any], part: str) -> Iterator[Arrays]:
    for batch in batches(job, part):
        yield {name: batch[name] for name in job["inputs"]}


class Clock:
    """Seconds and memory from now on; what was imported before does not count."""

    def __init__(self) -> None:
        self._base, self._started = memory.held(), time.perf_counter()

    def told(self, file: Path) -> dict[str, Any]:
        """What it took to make this file."""
        return {
            "file": str(file), "seconds": round(time.perf_counter() - self._started, 1),
            "peak_mb": round(max(0.0, memory.peak() - self._base)),
        }  # fmt: skip


def onnxruntime_static(job: dict[str, Any], place: Path) -> dict[str, Any]:
    """As its documentation has it: pre-processed, Q/DQ, min-max, per channel."""
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, quantize_static

    class Reader:
        def __init__(self) -> None:
            self.batches = feeds(job, "calibration")

        def get_next(self) -> Arrays | None:
            return next(self.batches, None)

    clock, file = Clock(), place / "model.onnx"
    quantize_static(
        prepared(job, place), file, Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
        calibrate_method=CalibrationMethod.MinMax,
    )  # fmt: skip
    return clock.told(file)


def onnxruntime_dynamic(job: dict[str, Any], place: Path) -> dict[str, Any]:
    from onnxruntime.quantization import quantize_dynamic

    clock, file = Clock(), place / "model.onnx"
    quantize_dynamic(prepared(job, place), file, per_channel=True)
    return clock.told(file)


def prepared(job: dict[str, Any], place: Path) -> Path:
    """Shapes inferred and constants folded, in a folder that is not the model's."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    path = place.with_name(f"{place.name}-prepared.onnx")
    quant_pre_process(job["graph"], path, skip_symbolic_shape=True)
    return path


def nncf(job: dict[str, Any], place: Path) -> dict[str, Any]:
    import nncf as library
    import openvino as ov

    rows = list(feeds(job, "calibration"))
    kind = library.ModelType.TRANSFORMER if job["transformer"] else None
    clock = Clock()
    model = ov.Core().read_model(job["graph"])
    made = library.quantize(model, library.Dataset(rows), subset_size=len(rows), model_type=kind)
    ov.save_model(made, place / "model.xml", compress_to_fp16=False)
    return clock.told(place / "model.xml")


def nncf_with_accuracy(job: dict[str, Any], place: Path) -> dict[str, Any]:
    """The limit is relative, as mlpack's is."""
    import nncf as library
    import openvino as ov

    from mlpack.measure.metrics import join, metric

    rows, checked = list(feeds(job, "calibration")), list(batches(job, "choosing"))
    measured = metric(job["metric"], labels=LABELS in checked[0], output=job["output"])
    kind = library.ModelType.TRANSFORMER if job["transformer"] else None

    def validate(compiled: Any, samples: Any) -> tuple[float, None]:
        kept = []
        for batch in samples:
            found = compiled({name: batch[name] for name in job["inputs"]})
            outputs = {output.get_any_name(): found[output] for output in compiled.outputs}
            kept.append(measured.keep(outputs, batch.get(LABELS)))
        return measured.reduce(join(kept)), None

    clock = Clock()
    model = ov.Core().read_model(job["graph"])
    made = library.quantize_with_accuracy_control(
        model, calibration_dataset=library.Dataset(rows), validation_dataset=library.Dataset(checked),
        validation_fn=validate, subset_size=len(rows), model_type=kind,
        max_drop=float(job["limit"].rstrip("%")) / 100, drop_type=library.DropType.RELATIVE,
    )  # fmt: skip
    ov.save_model(made, place / "model.xml", compress_to_fp16=False)
    return clock.told(place / "model.xml")


def olive(job: dict[str, Any], place: Path) -> dict[str, Any]:
    import int8_olive

    return int8_olive.search(job, place)


if __name__ == "__main__":
    main()
