"""load: what the user handed in becomes a Model folder whose inputs, outputs and names are decided once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from pydantic import Field

from mlpack.core.loader import ENTRY, Kind, Loader
from mlpack.core.model import Model, TensorSpec
from mlpack.core.recipe import SourceSpec, Weights
from mlpack.core.report import Report
from mlpack.core.stage import Outcome, Stage
from mlpack.core.user_code import absolute, find_reference, running
from mlpack.datasets import check_fits
from mlpack.datasets.fit import check_sizes
from mlpack.datasets.random_rows import random_arrays
from mlpack.errors import ModelError, UsageError
from mlpack.sources import SOURCES
from mlpack.sources.detect import detect
from mlpack.sources.input_spec import Parameters, choose_inputs, parse_inputs
from mlpack.stages.torch_imports import with_architecture, with_code

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import torch

    from mlpack.core.dataset import Part
    from mlpack.core.stage import Job
    from mlpack.datasets.rows import RowDataset

_ROWS = 3
_EXAMPLE = "--input name=float32:batch,3,224,224 for each input"
_NUMERICS = {"float16": "fp16", "bfloat16": "bf16"}


class Load(Stage):
    """Recognise what the user handed in, check that it can be optimized, and name its inputs and outputs."""

    name: ClassVar[str] = "load"
    accepts: ClassVar[tuple[()]] = ()
    gives: ClassVar[None] = None
    libraries: ClassVar[tuple[str, ...]] = ("torch", "onnx")
    code: ClassVar[tuple[str, ...]] = (
        "mlpack.sources",
        "mlpack.backends.torch_hf",
        "mlpack.backends.torch_hf_on_disk",
        "mlpack.backends.torch_loader",
        "mlpack.backends.torch_modes",
        "mlpack.backends.torch_probe",
        "mlpack.backends.torch_surgery",
    )
    keyed_by_target: ClassVar[bool] = False

    path: str = Field(description="model file, or package.module:function, as given")
    sha256: str = Field(description="of the file, or of the factory's source")
    kind: Kind = Field(description="what the content was recognised as")
    factory: str | None = Field(default=None, description="function that makes the module for a state dict")
    factory_sha256: str | None = Field(default=None, description="of the factory's source")
    inputs: tuple[str, ...] = Field(default=(), description="name=dtype:dims of each input, as given")
    data_inputs: tuple[TensorSpec, ...] = Field(default=(), description="arrays that the data has")
    static_batch: bool = Field(default=False, description="keep the batch size fixed")
    allow_pickle: bool = Field(default=False, description="load a pickle that may run code")
    weights: Weights = Field(default="auto", description="of a Hugging Face folder: in memory, or read as needed")

    @classmethod
    def of(cls, spec: SourceSpec, data_inputs: tuple[TensorSpec, ...] = ()) -> Load:
        """The stage for a source: recognises and hashes the file, loads nothing.

        Raises:
            ModelError: what was handed in cannot be used.
            UsageError: an `--input` is wrong.
        """
        parse_inputs(spec.inputs)
        found = detect(spec)
        if spec.weights == "disk" and found.kind != "hf_folder":
            raise UsageError(
                f"--weights disk is for Hugging Face folders, and {spec.model} is none",
                "leave it out, or save the model as a folder: model.save_pretrained(FOLDER)",
            )
        return cls(
            path=spec.model,
            sha256=found.sha256,
            kind=found.kind,
            factory=spec.factory,
            factory_sha256=found.factory_sha256,
            inputs=spec.inputs,
            data_inputs=data_inputs,
            static_batch=spec.static_batch,
            allow_pickle=spec.allow_pickle,
            weights=spec.weights,
        )

    def keyed(self) -> dict[str, Any]:
        """However a file is named, it is the same file."""
        named = {"path": self.path, "factory": self.factory}
        return {**super().keyed(), **{name: absolute(each) for name, each in named.items() if each is not None}}

    def reads(self) -> tuple[Part, ...]:
        """A few rows, to see that the answers are numbers."""
        return ("choosing",)

    def imports(self, model: Model | None) -> tuple[str, ...]:
        """Those of the torch model that it loads."""
        del model
        if self.kind == "onnx_file":
            return ()
        if self.kind == "hf_folder":
            return with_architecture(Path(self.path).expanduser())
        code = self.path if self.kind == "factory" else self.factory
        return with_code(None if code is None else find_reference(code, "factory", ModelError))

    def run(self, model: Model | None, job: Job) -> Outcome:
        """Write the Model folder.

        Raises:
            ModelError: the file or factory cannot be used, or the module answers NaN or differently twice.
            DataError: the data does not fit the module.
            StageFailed: a call changes the module.
        """
        del model
        spec = SourceSpec(
            model=self.path,
            factory=self.factory,
            inputs=self.inputs,
            static_batch=self.static_batch,
            allow_pickle=self.allow_pickle,
            weights=self.weights,
        )
        found = detect(spec)
        if (found.sha256, found.factory_sha256) != (self.sha256, self.factory_sha256):
            raise ModelError(f"{self.path} or its factory changed during the run", "start again once it is written")
        job.say(f"loading {self.path} ({found.kind.replace('_', ' ')})")
        made = SOURCES[found.kind].write(found, spec, job.out)
        notes: tuple[str, ...] = ()
        if made is None:
            made, notes = self._complete(job)
        elif self.inputs:
            raise ModelError("an ONNX file knows its inputs: --input cannot change them", "leave --input out")
        facts = {
            "kind": self.kind,
            "sha256": self.sha256,
            "size_bytes": made.size_bytes,
            "batch": _batch_words(made),
            "notes": list(notes),
        }
        return Outcome(made, Report(metrics=facts))

    def _complete(self, job: Job) -> tuple[Model, tuple[str, ...]]:
        """Run the module to learn what the file does not say; then finish `loader.json`. Also what to tell of it."""
        from mlpack.backends import torch_probe
        from mlpack.backends.torch_loader import Exported, Flat, load_inner

        loader = Loader.read(job.out)
        notes = list(loader.unwrapped)
        inner = load_inner(job.out, loader, notes.append)
        dtype = torch_probe.float_dtype(inner)
        if dtype in _NUMERICS:
            # Weights by themselves are widened as they are loaded; a program has its types in every operator.
            notes.append(f"the .pt2 computes in {dtype}: kept as it is")
        for note in notes:
            job.say(note)
        program = inner.program if isinstance(inner, Exported) else None
        specs = self._inputs_of_program(program, job) if program is not None else self._inputs_of(inner, loader)
        names = tuple(spec.name for spec in specs)
        flat = Flat(inner, names)
        real = _real_rows(job, specs)
        sizes = torch_probe.sizes_to_try(specs, program)

        def make(wanted: Mapping[str, int]) -> Mapping[str, np.ndarray]:
            rows = _rows(specs, wanted)
            if real is not None and set(wanted) <= {"batch"} and len(real[names[0]]) >= rows:
                return {name: array[:rows] for name, array in real.items()}
            return random_arrays(specs, rows, job.seed, wanted)

        shapes = ", ".join(str(spec) for spec in specs)
        with running(loader.code, f"forward({shapes})", ModelError, f"say what it takes: {_EXAMPLE}"):
            torch_probe.check_repeatable(flat, names, make(sizes))
            outputs = torch_probe.output_specs(flat, specs, sizes, make)
            if real is not None:
                torch_probe.check_no_nan(flat, names, real)
        loader.model_copy(update={"inputs": names, "outputs": tuple(spec.name for spec in outputs)}).write(job.out)
        made = Model(
            path=job.out,
            entry=ENTRY,
            format="torch",
            inputs=specs,
            outputs=outputs,
            largest=loader.largest,
            numerics=_NUMERICS.get(dtype, "fp32"),
            on_disk=loader.on_disk,
            backend="torch",
        )
        return made, tuple(notes)

    def _inputs_of_program(self, program: torch.export.ExportedProgram, job: Job) -> tuple[TensorSpec, ...]:
        from mlpack.backends import torch_probe

        if self.inputs:
            raise ModelError("a .pt2 knows its inputs: --input cannot change them", "leave --input out")
        training = torch_probe.training_operators(program)
        if training:
            raise ModelError(
                f"the .pt2 was exported in training mode ({', '.join(training)} would do what they do in training)",
                "export it again in inference mode: torch.export.export(model.eval(), args)",
            )
        specs = torch_probe.program_inputs(program)
        if not any("batch" in spec.dims for spec in specs):
            job.say(f"the .pt2 was exported for a batch of {specs[0].dims[0]} only: it stays that way")
        if not self.static_batch:
            return specs
        rows = torch_probe.smallest_batch(specs, program)
        return tuple(
            spec.model_copy(update={"dims": tuple(rows if dim == "batch" else dim for dim in spec.dims)})
            for spec in specs
        )

    def _inputs_of(self, inner: torch.nn.Module, loader: Loader) -> tuple[TensorSpec, ...]:
        from mlpack.backends import torch_probe

        usual = _with_sizes(parse_inputs(loader.usual), loader.fixed, self.data_inputs)
        wanted = {spec.name: spec for spec in usual}
        for given in (*self.data_inputs, *parse_inputs(self.inputs)):
            if given.name in wanted:
                check_sizes(given.name, given.dims, wanted[given.name], loader.largest)
        found = torch_probe.signature(inner)
        return choose_inputs(
            Parameters(found.names, found.required, found.open_to),
            _as_wide(parse_inputs(self.inputs), torch_probe.float_dtype(inner)) or _those_in(usual, self.data_inputs),
            self.data_inputs,
            float_dtype=torch_probe.float_dtype(inner),
            static_batch=self.static_batch,
        )


def _as_wide(given: tuple[TensorSpec, ...], dtype: str) -> tuple[TensorSpec, ...]:
    """Inputs in half precision as a module takes them whose weights were widened."""
    return tuple(
        spec.model_copy(update={"dtype": dtype}) if spec.dtype in _NUMERICS and dtype not in _NUMERICS else spec
        for spec in given
    )


def _with_sizes(
    usual: tuple[TensorSpec, ...], fixed: Mapping[str, int], data: tuple[TensorSpec, ...]
) -> tuple[TensorSpec, ...]:
    """What usually goes in, with the data's size of each dim that does not change, else the usual one."""
    sizes = dict(fixed)
    for spec in usual:
        dims = next((each.dims for each in data if each.name == spec.name), ())
        pairs = zip(spec.dims, dims, strict=False)
        sizes |= {dim: size for dim, size in pairs if isinstance(dim, str) and dim in fixed and isinstance(size, int)}
    return tuple(
        spec.model_copy(update={"dims": tuple(sizes.get(str(dim), dim) for dim in spec.dims)}) for spec in usual
    )


def _those_in(usual: tuple[TensorSpec, ...], data: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    """What usually goes in, less what the data does not have; nothing where the data has something else."""
    names = {spec.name for spec in data}
    if names - {spec.name for spec in usual}:
        return ()
    return tuple(spec for spec in usual if not names or spec.name in names)


def _rows(specs: tuple[TensorSpec, ...], sizes: Mapping[str, int]) -> int:
    first = specs[0].dims[0]
    return first if isinstance(first, int) else sizes[first]


def _batch_words(model: Model) -> str:
    return "dynamic" if model.dynamic_batch else f"fixed at {model.inputs[0].dims[0]}"


def _real_rows(job: Job, specs: tuple[TensorSpec, ...]) -> dict[str, np.ndarray] | None:
    """The first rows of the data as the module wants them, as many as a fixed batch needs."""
    dataset = job.dataset("choosing")
    if dataset is None:
        return None
    rows = _rows(specs, {"batch": _ROWS})
    batch = next(check_fits(cast("RowDataset", dataset), specs).batches(rows))
    return batch.inputs if len(batch) == rows else None
