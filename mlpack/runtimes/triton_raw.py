"""Raw samples in Triton: an ensemble of the pipeline's first half, the model, and the pipeline's second half."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from mlpack.runtimes.package_files import TEMPLATES, facts, render
from mlpack.runtimes.raw_side import pipeline_files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mlpack.core.artifact import Stored
    from mlpack.core.model import TensorSpec
    from mlpack.core.runtime import PackageOptions
    from mlpack.runtimes.package_files import Batching
    from mlpack.runtimes.raw_side import RawSide

_TYPES = {"BYTES": "TYPE_STRING", "FP32": "TYPE_FP32", "INT64": "TYPE_INT64", "BOOL": "TYPE_BOOL"}
_EMPTY = "An ensemble has no file of its own; Triton wants the folder of its version.\n"
_PURPOSES = {"prepare": "raw samples to its inputs", "finish": "its outputs to answers"}

Tensors = list[tuple[str, dict[str, Any]]]


def ensemble_name(name: str) -> str:
    """What clients with raw samples ask, beside the model, whose own clients stay right."""
    return f"{name}_raw"


def raw_models(
    stored: Stored,
    raw: RawSide,
    options: PackageOptions,
    shared_by: Batching,
    tensor: Callable[[TensorSpec], dict[str, Any]],
) -> dict[str, str | bytes | Path]:
    """Files of the ensemble and of its steps, by relative path. `tensor` describes a model's tensor to Triton."""
    name, version = stored.artifact.name, stored.artifact.version
    fields = [_column(field, "BYTES", shared_by) for field in raw.fields]
    columns = [_column(column, datatype, shared_by) for column, datatype in raw.columns.items()]
    inputs = [tensor(spec) for spec in stored.artifact.model.inputs]
    outputs = [tensor(spec) for spec in stored.artifact.model.outputs]
    # Names within the ensemble: a raw field may be called as an input is, and a column as an output is.
    taken = {each["name"]: f"prepared_{each['name']}" if fields else each["name"] for each in inputs}
    given = {each["name"]: f"model_{each['name']}" if each["name"] in raw.columns else each["name"] for each in outputs}
    own = {key: key for key in (*raw.fields, *raw.columns)}
    sides: dict[str, tuple[Tensors, dict[str, str], dict[str, str]]] = {}
    if fields:
        sides["prepare"] = _ends(fields, inputs), {key: own[key] for key in raw.fields}, taken
    sides[""] = [], taken, given
    if columns:
        asked = {**given, **{key: own[key] for key in raw.fields}}
        sides["finish"] = _ends([*outputs, *fields], columns), asked, {key: own[key] for key in raw.columns}
    values = {**facts(stored, shared_by), "ensemble": ensemble_name(name), "instances": options.instances}
    files: dict[str, str | bytes | Path] = {}
    for side, (ends, _, _) in sides.items():
        if not side:
            continue
        place = f"model_repository/{name}_{side}"
        told = {"step": f"{name}_{side}", "side": side, "purpose": _PURPOSES[side], "tensors": ends}
        files[f"{place}/config.pbtxt"] = _tidy(render("triton/step.pbtxt.j2", **values, **told))
        files[f"{place}/{version}/model.py"] = TEMPLATES / "triton" / "step.py"
        files |= pipeline_files(stored, f"{place}/{version}/mlpack_pipeline", f"{place}/{version}/pipeline")
    steps = [
        {"model": f"{name}_{side}" if side else name, "inputs": left, "outputs": right}
        for side, (_, left, right) in sides.items()
    ]
    shown = [each for each in outputs if given[each["name"]] == each["name"]]
    ends = _ends(fields or inputs, [*columns, *shown])
    place = f"model_repository/{ensemble_name(name)}"
    files[f"{place}/config.pbtxt"] = _tidy(render("triton/ensemble.pbtxt.j2", **values, tensors=ends, steps=steps))
    files[f"{place}/{version}/README"] = _EMPTY
    return files


def _ends(inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> Tensors:
    return [*(("input", each) for each in inputs), *(("output", each) for each in outputs)]


def _column(name: str, datatype: str, shared_by: Batching) -> dict[str, Any]:
    """One value per sample: beside the batch Triton needs one more dim."""
    dims = [-1] if shared_by.max_rows is None else [1]
    return {"name": name, "data_type": _TYPES[datatype], "dims": dims, "symbols": "", "scalar": False}


def _tidy(text: str) -> str:
    return re.sub(r"\n{3,}", "\n\n", text)
