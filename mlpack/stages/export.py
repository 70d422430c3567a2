"""export: a torch model becomes an ONNX file that is shown to answer the same before anything else is done."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from mlpack.core.model import Model, TensorSpec
from mlpack.core.report import Report
from mlpack.core.stage import Outcome, Stage
from mlpack.errors import ModelError
from mlpack.stages.torch_imports import imports_of

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import onnx
    import torch

    from mlpack.core.dataset import Part
    from mlpack.core.model import Format
    from mlpack.core.stage import Job

_ENTRY = "model.onnx"
_INLINE_BYTES = 1_500_000_000
_VERIFIED_ROWS = 64
# Each run reads all weights from the disk.
_ROWS_ON_DISK = 2
_LEGACY_OPSET = 18
# What torch.export writes in place of a module where it made the node itself.
_NO_MODULE = "_empty_nn_module_stack"


class Export(Stage):
    """Export to ONNX with torch's dynamo exporter (TorchScript archives: the TorchScript exporter).

    The file is run beside the original on real rows, one at a time and together; an output whose relative L2
    difference is over `tolerance` is an error. Node names carry the path of the module that they came from. Weights
    that stay on the disk are linked, not written again, and both are then run in pieces, on two rows.
    """

    name: ClassVar[str] = "export"
    accepts: ClassVar[tuple[Format, ...]] = ("torch", "onnx")
    gives: ClassVar[Format | None] = "onnx"
    libraries: ClassVar[tuple[str, ...]] = ("torch", "onnx", "onnxscript", "onnxruntime")
    code: ClassVar[tuple[str, ...]] = (
        "mlpack.stages.samples", "mlpack.stages.same_answers", "mlpack.stages.export_recurrent",
        "mlpack.stages.export_on_disk", "mlpack.backends.torch_hf", "mlpack.backends.torch_hf_on_disk",
        "mlpack.backends.torch", "mlpack.backends.torch_loader", "mlpack.backends.torch_modes",
        "mlpack.backends.torch_surgery", "mlpack.backends.torch_changed", "mlpack.backends.onnxruntime_pieces",
        "mlpack.sources.safetensors_header", "mlpack.core.external_data",
    )  # fmt: skip
    keyed_by_target: ClassVar[bool] = False

    opset: int = Field(default=20, ge=17, le=23, description="ONNX opset")
    tolerance: float = Field(default=1e-3, gt=0, description="largest relative L2 difference of an output")

    def reads(self) -> tuple[Part, ...]:
        """Real rows to verify on; calibration rows, since the others are for judging."""
        return ("calibration",)

    def imports(self, model: Model | None) -> tuple[str, ...]:
        """Those of a torch model."""
        return imports_of(model)

    def run(self, model: Model | None, job: Job) -> Outcome:
        """Export, name the nodes, verify.

        Raises:
            ModelError: the model has control flow or state that cannot be exported; says which.
            StageFailed: the exporter refuses, or the file answers differently.
        """
        assert model is not None
        if model.format == "onnx":
            named = _named(model, job.out)
            return Outcome(model=named, report=Report(metrics={"exported": "already ONNX"}))
        if model.numerics == "bf16":
            raise ModelError(
                "the model computes in bfloat16, which runtimes do not take as it is",
                "export it from model.float(): --bf16 narrows it again where that gains",
            )
        from mlpack.stages import same_answers, samples

        example, kind = samples.rows(model, job, "calibration", _ROWS_ON_DISK if model.on_disk else _VERIFIED_ROWS)
        job.say("exporting to ONNX")
        proto = _export(model, example, self.opset, job.out)
        _name_nodes_by_module(proto)
        exported = model.model_copy(
            update={
                "path": job.out,
                "entry": _ENTRY,
                "format": "onnx",
                "backend": None,
                "inputs": _specs(proto.graph.input, model.inputs),
                "outputs": _specs(proto.graph.output, model.outputs),
            }
        )
        _save(proto, exported.entry_path)
        job.say("verifying the ONNX file against the original")
        worst = same_answers.differences(model, exported, "onnxruntime", example, job, self.tolerance)
        return Outcome(
            model=exported,
            report=Report(metrics={"nodes": len(proto.graph.node), "verified_on": kind, "differences": worst}),
        )


def _export(model: Model, example: dict[str, np.ndarray], opset: int, out: Path) -> onnx.ModelProto:
    """The graph; where its weights are too many for one message they lie in `out` already, as external data."""
    import onnx
    import torch

    from mlpack.backends.torch import load_exported, load_module
    from mlpack.backends.torch_runner import to_tensor
    from mlpack.stages.export_on_disk import export_on_disk

    arguments = tuple(to_tensor(example[spec.name]) for spec in model.inputs)
    if model.on_disk:
        return export_on_disk(model, out, partial(_program, model, arguments, opset, "as it is"))
    program = load_exported(model)
    module = program if program is not None else load_module(model)
    if isinstance(getattr(module, "inner", module), torch.jit.ScriptModule):
        return _export_torchscript(module, arguments, model, out)
    exported = _program(model, arguments if program is None else None, opset, "optimized", module)
    values = (each.const_value for each in exported.model.graph.initializers.values())
    if sum(value.nbytes for value in values if value is not None) <= _INLINE_BYTES:
        return exported.model_proto
    exported.save(out / _ENTRY, external_data=True)
    return onnx.load(out / _ENTRY, load_external_data=False)


def _program(
    model: Model,
    arguments: tuple[torch.Tensor, ...] | None,
    opset: int,
    graph: Literal["optimized", "as it is"],
    module: Any,
) -> Any:
    """Torch's ONNX program of the module; without arguments it is an exported program, which has its own.

    Raises:
        ModelError: it cannot be exported; says why.
    """
    import torch

    from mlpack.stages.export_recurrent import whole_recurrent_layers

    shapes = tuple(
        {axis: dim for axis, dim in enumerate(spec.dims) if isinstance(dim, str)} or None for spec in model.inputs
    )
    try:
        with contextlib.redirect_stdout(None), whole_recurrent_layers() as translations:
            exported = torch.onnx.export(
                module,
                arguments or (),
                dynamo=True,
                opset_version=opset,
                input_names=[spec.name for spec in model.inputs],
                output_names=[spec.name for spec in model.outputs],
                # One tuple, for the one parameter *tensors of the flat module.
                dynamic_shapes=None if arguments is None else (shapes,),
                custom_translation_table=translations,
                optimize=graph == "optimized",
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise _refused(error) from error
    assert exported is not None
    return exported


def _export_torchscript(module: Any, arguments: tuple[torch.Tensor, ...], model: Model, out: Path) -> onnx.ModelProto:
    import tempfile
    from pathlib import Path

    import onnx
    import torch

    shapes = {
        spec.name: {axis: dim for axis, dim in enumerate(spec.dims) if isinstance(dim, str)}
        for spec in (*model.inputs, *model.outputs)
    }
    # To a file: what is over 2 GB then has its weights in files beside it, many of them.
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        path = Path(folder) / _ENTRY
        try:
            torch.onnx.export(
                # The exporter cannot enter a script module inside a plain one; a trace holds it, loops and all.
                torch.jit.trace(module, arguments, check_trace=False),
                arguments,
                str(path),
                dynamo=False,
                opset_version=_LEGACY_OPSET,
                input_names=[spec.name for spec in model.inputs],
                output_names=[spec.name for spec in model.outputs],
                dynamic_axes={name: shape for name, shape in shapes.items() if shape},
            )
        except (torch.onnx.OnnxExporterError, RuntimeError) as error:
            raise _refused(error) from error
        return onnx.load(path)


def _refused(error: Exception) -> ModelError:
    causes = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)  # type: ignore[arg-type] # a cause raised by a library is an Exception
    lines = [line.strip() for line in str(causes[-1]).splitlines() if line.strip()]
    reason = lines[0] if lines else type(causes[-1]).__name__
    return ModelError(
        f"this model cannot be exported to ONNX: {type(causes[-1]).__name__}: {reason}",
        "control flow that depends on values, and hidden state, have to become tensor operations (torch.where, "
        "torch.cond) or explicit inputs and outputs",
    )


def _name_nodes_by_module(proto: onnx.ModelProto) -> None:
    """Lead each node's name by its module's path: simplifiers drop metadata and keep names."""
    for node in proto.graph.node:
        path, name = _module_path(node)
        node.name = f"{path}/{name}" if path else name
        del node.metadata_props[:]
    # Stale shapes of initializers make ONNX Runtime's quantizer fail ("inferred and existing shape differ").
    del proto.graph.value_info[:]


def _named(model: Model, out: Path) -> Model:
    """An ONNX file whose nodes all have names, by which later steps know them: its own, or a copy beside its data."""
    import onnx

    from mlpack.core.filesystem import link_or_copy

    proto = onnx.load(model.entry_path, load_external_data=False)
    names = {node.name for node in proto.graph.node}
    if "" not in names:
        return model
    for at, node in enumerate(proto.graph.node):
        if not node.name:
            node.name = f"{node.op_type}_{at}"
            while node.name in names:
                node.name += "_"
            names.add(node.name)
    onnx.save(proto, out / model.entry)
    for file in model.files():
        if file != model.entry_path:
            link_or_copy(file, out / file.relative_to(model.path))
    return model.model_copy(update={"path": out})


def _module_path(node: onnx.NodeProto) -> tuple[str, str]:
    """The dotted path of the module that a node came from, empty where none is known, and the node's own name."""
    import ast

    if node.name.startswith("/inner/"):  # the TorchScript exporter has the path in the name
        *modules, name = node.name.removeprefix("/inner/").split("/")
        return ".".join(modules), name
    scopes = next((item.value for item in node.metadata_props if item.key == "pkg.torch.onnx.name_scopes"), "[]")
    modules = [
        scope
        for scope in ast.literal_eval(scopes)[:-1]
        if scope and scope != "inner" and not scope.startswith(_NO_MODULE)
    ]
    return (modules[-1].removeprefix("inner.") if modules else ""), node.name


def _save(proto: onnx.ModelProto, path: Path) -> None:
    import onnx

    # Tensor by tensor: a message over 2 GB cannot even be asked for its size.
    if sum(tensor.ByteSize() for tensor in proto.graph.initializer) > _INLINE_BYTES:
        onnx.save(proto, path, save_as_external_data=True, all_tensors_to_one_file=True, location="model.onnx.data")
    else:
        onnx.save(proto, path)


def _specs(values: Any, originals: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    """The file's own dims, but the original's where the exporter lost or renamed them, then so in the file too."""
    import onnx

    by_name = {spec.name: spec for spec in originals}
    specs = []
    for value in values:
        tensor = value.type.tensor_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
        dims: list[int | str] = [dim.dim_param or dim.dim_value for dim in tensor.shape.dim]
        known = by_name.get(value.name)
        if known is not None and len(known.dims) == len(dims):
            dims = list(known.dims)
            for written, dim in zip(tensor.shape.dim, dims, strict=True):
                if isinstance(dim, str):
                    written.dim_param = dim
                else:
                    written.dim_value = dim
        specs.append(TensorSpec(name=value.name, dtype=dtype, dims=tuple(dims)))
    return tuple(specs)
