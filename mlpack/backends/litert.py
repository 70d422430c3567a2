"""The litert backend: LiteRT's interpreter on the CPU, for files that the convert_litert stage made."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from mlpack.errors import MissingHardware, StageFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mlpack.core.backend import Backend, Runner, Spent
    from mlpack.core.backend_options import BackendOptions
    from mlpack.core.model import Format, Model
    from mlpack.core.target import Target

_REFUSALS = (RuntimeError, ValueError)


class _InterpreterRunner:
    """One interpreter of one file; its tensors have the sizes that the file was made with."""

    def __init__(self, interpreter: Any, model: Model) -> None:
        self._interpreter, self._model = interpreter, model
        signature = interpreter.get_signature_runner()
        # The converter numbers inputs and outputs: args_0, output_0.
        self._inputs = _places(model.inputs, signature.get_input_details())
        self._outputs = _places(model.outputs, signature.get_output_details())

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.copy_in(inputs)
        self.compute()
        return self.copy_out()

    def copy_in(self, inputs: Mapping[str, np.ndarray]) -> None:
        try:
            for spec in self._model.inputs:
                array = np.ascontiguousarray(inputs[spec.name], dtype=spec.numpy_dtype)
                self._interpreter.set_tensor(self._inputs[spec.name], array)
        except _REFUSALS as error:
            raise _refused(error) from error

    def compute(self) -> None:
        try:
            self._interpreter.invoke()
        except _REFUSALS as error:
            raise _refused(error) from error

    def copy_out(self) -> dict[str, np.ndarray]:
        return {name: self._interpreter.get_tensor(place) for name, place in self._outputs.items()}

    def device_ms(self) -> float | None:
        return None


class LiteRt:
    """LiteRT with XNNPACK's kernels: what an Android phone's CPU runs too."""

    name = "litert"
    libraries: tuple[str, ...] = ("ai-edge-litert",)
    formats: tuple[Format, ...] = ("litert",)

    def refusal(self, model: Model, target: Target, options: BackendOptions) -> str | None:
        """The CPU alone, in float32."""
        del model
        if options.device != "cpu" or target.kind == "cuda":
            return "its interpreter is driven on the CPU here"
        if options.precision != "float32":
            return "it executes a file in the file's own types"
        if options.graph_optimizations == "off":
            return "its kernels fuse what they can"
        return None

    @contextmanager
    def open(self, model: Model, target: Target, options: BackendOptions) -> Iterator[Runner]:
        """One interpreter with exactly the threads that were asked for.

        Raises:
            MissingHardware: another device or precision is asked for.
            StageFailed: the library cannot read the file.
        """
        if reason := self.refusal(model, target, options):
            raise MissingHardware(f"LiteRT cannot run this here: {reason}", "try --backend onnxruntime")
        try:
            interpreter = Interpreter(str(model.entry_path), num_threads=options.threads or 1)
            interpreter.allocate_tensors()
        except _REFUSALS as error:
            raise _refused(error) from error
        yield _InterpreterRunner(interpreter, model)

    def operators(
        self, model: Model, target: Target, options: BackendOptions, inputs: Mapping[str, np.ndarray]
    ) -> tuple[Spent, ...]:
        """Nothing: the wheel's interpreter has no profiler."""
        del model, target, options, inputs
        return ()


def _places(specs: Any, details: dict[str, Any]) -> dict[str, int]:
    numbered = sorted(details, key=lambda name: int(name.rpartition("_")[2]))
    return {spec.name: int(details[name]["index"]) for spec, name in zip(specs, numbered, strict=True)}


def _refused(error: Exception) -> StageFailed:
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return StageFailed(
        f"LiteRT refuses this model: {reason}",
        "make it for that batch: mlpack convert MODEL --to litert --set convert_litert.batch=8",
    )


BACKEND: Backend = LiteRt()
