"""quantize: fp16, bf16, int8, int4 or fp8 numerics written into the ONNX graph, by the rules of the target."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from mlpack.core.model import Model, Quantization
from mlpack.core.report import Report
from mlpack.core.stage import Outcome, Stage
from mlpack.errors import StageFailed, UsageError
from mlpack.stages.quantize_clashes import GPTQ_ONLY, INT8_ONLY, STATIC_ONLY, clash, lacking_on_cards

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from mlpack.core.dataset import Part
    from mlpack.core.model import Format
    from mlpack.core.stage import Job
    from mlpack.core.target import Target
    from mlpack.quantization.range_table import RangeTable

Method = Literal["auto", "cast", "dynamic", "static", "rtn", "hqq", "gptq"]
Operators = Literal["auto", "all", "weighted"]
CalibrationMethod = Literal["minmax", "moving_average", "percentile", "entropy", "mse"]

# fp16 gains nothing on CPUs (measured), bf16 graphs for NVIDIA targets are not made yet.
_GAINS = {"cpu": ("bf16", "int8"), "cuda": ("fp16", "int8")}
_CASTS = ("fp16", "bf16")
_RECURRENT = {"LSTM", "GRU", "RNN"}
_CONVOLUTION = {"Conv", "ConvTranspose"}
_PRODUCT = {"MatMul", "Gemm"}
_CPU_BLOCK, _NVIDIA_BLOCK = 32, 128
# Of rtn's grids hqq's are never worse, for a few seconds.
_BEST_IN_BLOCKS: tuple[Method, ...] = ("hqq", "gptq")


class Quantize(Stage):
    """Change the numerics of the graph: a cast, Q/DQ pairs, integer kernels, or weights in blocks of four bits.

    `method: auto` and `operators: auto` propose every flavour that can fit the graph; which one a model gets is
    decided by what is measured on it. A run that changes no node is an error.
    """

    name: ClassVar[str] = "quantize"
    accepts: ClassVar[tuple[Format, ...]] = ("onnx",)
    gives: ClassVar[Format | None] = "onnx"
    libraries: ClassVar[tuple[str, ...]] = ("onnx", "onnxruntime", "ml_dtypes")
    code: ClassVar[tuple[str, ...]] = (
        "mlpack.quantization", "mlpack.stages.samples", "mlpack.stages.quantize_cast", "mlpack.stages.quantize_int8",
        "mlpack.stages.module_names", "mlpack.stages.kept_ranges",
        "mlpack.stages.calibration_rows", "mlpack.stages.quantize_int4", "mlpack.stages.quantize_clashes",
    )  # fmt: skip

    numerics: Literal["auto", "fp16", "bf16", "int8", "int4", "fp8"] = Field(
        description="what the compute is to run in; auto tries all that the target gains from"
    )
    method: Method = Field(
        default="auto",
        description="int8: ranges per batch (dynamic) or calibrated (static); int4: weights to the nearest step (rtn), "
        "of a half-quadratic grid (hqq), or by what their layer answers (gptq)",
    )
    operators: Operators = Field(
        default="auto", description="static: every operator with integer kernels, or only those with weights"
    )
    per_channel: bool = Field(default=True, description="one weight scale for each output channel")
    calibration_method: CalibrationMethod = Field(default="minmax", description="how static ranges are found")
    percentile: float = Field(default=99.99, gt=50, le=100, description="for calibration_method: percentile")
    smooth: float = Field(
        default=0.0, ge=0, le=1, description="static int8: SmoothQuant's α after layer normalizations; 0: none"
    )
    equalize: bool = Field(default=False, description="static int8: even the ranges of channels across layers in a row")
    rounding: Literal["nearest", "adaptive"] = Field(
        default="nearest", description="static int8: weights up or down by what is nearer, or by what the layer answers"
    )
    bias_correction: bool = Field(
        default=False, description="static int8: take the mean error of each output channel off the bias"
    )
    ranges: str | None = Field(
        default=None, description="ranges of an earlier run in place of calibration: its reports/quantize.json"
    )
    exclude: tuple[str, ...] = Field(
        default=(), description="int8, int4: module paths or node names to leave in float, with all that lies in them"
    )
    block: Literal[16, 32, 64, 128] | None = Field(
        default=None, description="int4: weights that share a scale; none: 32, for NVIDIA targets 128"
    )
    symmetric: bool = Field(default=False, description="int4: no zero points; NVIDIA targets never have them")
    wide: tuple[str, ...] = Field(
        default=(), description="int4: modules or nodes whose weights get eight bits; float for NVIDIA targets"
    )
    activations: Literal["auto", "float", "int8"] = Field(
        default="auto",
        description="int4: what weights are multiplied with: int8 (onnxruntime's accuracy_level 4; what openvino does) "
        "or float, which onnxruntime alone has, and for four bits alone; auto: int8, float for NVIDIA targets",
    )
    embeddings: bool | Literal["auto"] = Field(
        default="auto", description="int4: tables that rows are looked up in, too; auto: those of least_share"
    )
    least_share: float = Field(
        default=0.0005, ge=0, lt=1, description="int4: a matrix with less of the weights' bytes stays in float"
    )
    damping: float = Field(default=0.01, gt=0, description="gptq: added to the Hessian's diagonal, of its mean")
    act_order: bool = Field(default=True, description="gptq: round the inputs that weigh most first")
    samples: int = Field(default=256, ge=1, description="calibration samples")
    batch: int = Field(default=16, ge=1, description="calibration batch size")

    def keyed(self) -> dict[str, Any]:
        """A file of ranges counts by what is in it."""
        from mlpack.quantization.range_table import read_ranges

        options = super().keyed()
        if self.ranges is not None:
            options["ranges"] = read_ranges(Path(self.ranges)).model_dump(mode="json")
        return options

    def reads(self) -> tuple[Part, ...]:
        """Calibration rows: to find ranges on, and to count the compute that changed."""
        return ("calibration",)

    def clash(self) -> str | None:
        """What only one kind of numerics or one method has, beside another; what has no use beside given ranges."""
        return clash(self)

    def refusal(self, target: Target) -> str | None:
        """The target's own list of numerics decides."""
        if self.numerics not in {"auto", *target.numerics}:
            return f"{target.title} has no {self.numerics} (it has {', '.join(target.numerics)})"
        if self.numerics == "int4" and target.kind == "cuda" and (lacking := lacking_on_cards(self)):
            return lacking
        if self.numerics == "fp8" and target.kind != "cuda":
            return "fp8 pairs are placed by the rules of NVIDIA targets, and this is none"
        if self.numerics == "bf16" and target.kind == "cuda":
            return "bf16 graphs for NVIDIA targets are not built by this version"
        if self.numerics == "int8" and self.method == "dynamic" and target.rules == "tensorrt-s8s8":
            return f"dynamic int8 does not run on {target.title}: TensorRT takes Q/DQ graphs only"
        return None

    def propose(self, model: Model, target: Target) -> tuple[Stage, ...]:
        """Every concrete flavour that can fit this graph and target; measuring decides among them."""
        if self.numerics == "auto":
            gains = [name for name in _GAINS[target.kind] if name in target.numerics]
            if self.method == "cast":
                gains = [name for name in gains if name in _CASTS]
            each = [self.model_copy(update={"numerics": name}) for name in gains]
            return tuple(proposed for stage in each for proposed in stage.propose(model, target))
        if self.numerics in _CASTS:
            return (self._without_static("cast"),)
        if self.numerics == "int4":
            methods: tuple[Method, ...] = (self.method,)
            if self.method == "auto":
                # GPTQ runs the float graph, which nothing holds where its weights stay on the disk.
                methods = tuple(each for each in _BEST_IN_BLOCKS if each != "gptq" or not model.on_disk)
            return tuple(self.model_copy(update={"method": method}).in_blocks(target) for method in methods)
        from mlpack.quantization.coverage import operator_counts

        present = set(operator_counts(model.entry_path))
        proposed: list[Quantize] = []
        dynamic = self.method == "dynamic" or (self.method == "auto" and self.ranges is None)
        if dynamic and self.numerics == "int8" and target.kind == "cpu" and present & (_PRODUCT | _RECURRENT):
            proposed.append(self._without_static("dynamic"))
        if self.method in {"auto", "static"}:
            wanted: tuple[Operators, ...] = self._ranged() if self.operators == "auto" else (self.operators,)
            proposed += [
                self.model_copy(update={"method": "static", "operators": operators})
                for operators in wanted
                if present & (_PRODUCT | _CONVOLUTION)
            ]
        return tuple(proposed) or (self,)

    def _without_static(self, method: Method) -> Quantize:
        """By another method, which has nothing of what only static int8 has."""
        plain = {name: type(self).model_fields[name].default for name in STATIC_ONLY}
        operators: Operators = "weighted" if method == "dynamic" else self.operators
        return self.model_copy(update={**plain, "method": method, "operators": operators})

    def in_blocks(self, target: Target) -> Quantize:
        """As weights in blocks are kept on this target, with nothing of what only other numerics or methods have."""
        others = (*STATIC_ONLY, *INT8_ONLY, *(GPTQ_ONLY if self.method != "gptq" else ()))
        told: dict[str, Any] = {name: type(self).model_fields[name].default for name in others}
        if target.kind == "cuda":
            told |= {"block": self.block or _NVIDIA_BLOCK, "symmetric": True, "activations": "float"}
            return self.model_copy(update={**told, "embeddings": False})
        activations = "int8" if self.activations == "auto" else self.activations
        return self.model_copy(update={**told, "block": self.block or _CPU_BLOCK, "activations": activations})

    def _ranged(self) -> tuple[Operators, ...]:
        """The sets of operators that there can be ranges for; those of all serve those with weights too."""
        from mlpack.quantization.range_table import read_ranges

        if self.ranges is not None and read_ranges(Path(self.ranges)).operators == "weighted":
            return ("weighted",)
        return ("all", "weighted")

    def diagnosis(self) -> tuple[Stage, ...]:
        """What each layer costs in accuracy, and for int8 what it gains in time; int4 gains bytes."""
        from mlpack.stages.measure_sensitivity import MeasureSensitivity
        from mlpack.stages.time_layers import TimeLayers

        measured: dict[str, tuple[Stage, ...]]
        measured = {"int8": (MeasureSensitivity(), TimeLayers()), "int4": (MeasureSensitivity(),)}
        return measured.get(self.numerics, ())

    def milder(self, reports: Mapping[str, Report], excess: float) -> Generator[Stage, float, None]:
        """Corrections that cost no speed, then the fewest, cheapest layers in float; for int4 in eight bits."""
        from mlpack.stages.quantize_milder import milder

        return milder(self, reports, excess)

    def run(self, model: Model | None, job: Job) -> Outcome:
        """Quantize, then count: what share of the multiply-accumulates really changed numerics.

        Raises:
            StageFailed: a library refuses the graph, or no node changed.
            UsageError: static int8 without any data to calibrate on.
        """
        assert model is not None
        from mlpack.quantization.coverage import operator_counts, share
        from mlpack.quantization.ranges import calibration_ranges
        from mlpack.stages import samples

        if model.on_disk and self.numerics != "int4":
            raise StageFailed(
                f"weights that stay on the disk are not turned into {self.numerics}, which would hold all of them",
                "--int4 takes one after the other",
            )
        rules = job.target.rules
        found: RangeTable | None = None
        weights: list[dict[str, Any]] = []
        only = model.only
        if self.numerics == "int4":
            from mlpack.stages.quantize_int4 import served_by, weight_only

            weights, only = weight_only(model, job, self), served_by(model, job, self)
        elif self.numerics == "fp16":
            from mlpack.stages.quantize_cast import to_fp16

            to_fp16(model, job)
        elif self.numerics == "bf16":
            from mlpack.stages.quantize_cast import to_bf16

            to_bf16(model, job)
        elif self.method == "dynamic":
            from mlpack.stages.quantize_int8 import dynamic

            dynamic(model, job, self)
        elif self.method == "static":
            from mlpack.stages.quantize_int8 import static

            found = static(model, job, self)
            if self.numerics == "fp8":
                from mlpack.quantization.float8 import to_e4m3

                to_e4m3(job.out / model.entry)
        else:
            raise UsageError(
                "this graph has no operator that int8 kernels exist for",
                "leave the numerics flag out: mlpack then takes the fastest model that it finds",
            )
        _keep_names(job.out / model.entry, model.entry_path)
        job.say("counting the compute that changed")
        example, _ = samples.rows(model, job, "calibration", 1)
        changed = share(job.out / model.entry, example, self.numerics)
        if changed == 0:
            raise StageFailed(
                f"quantizing to {self.numerics} changed no node of this graph",
                "leave the numerics flag out: mlpack then takes the fastest model that it finds",
            )
        details = self.model_dump(mode="json", exclude={"numerics", "method"})
        quantized = model.model_copy(
            update={
                "path": job.out,
                "on_disk": False,
                "numerics": self.numerics,
                "numerics_share": round(changed, 4),
                "only": only,
                "quantization": Quantization(rules=rules, method=self.method, details=details),
            }
        )
        counts = operator_counts(job.out / model.entry)
        tables = {
            "operators": [{"operator": operator, "nodes": nodes} for operator, nodes in sorted(counts.items())],
            "calibration_ranges": calibration_ranges(job.out / model.entry),
            "found_ranges": found.rows() if found else [],
            "weights": weights,
        }
        return Outcome(
            model=quantized,
            report=Report(
                metrics={"share": round(changed, 4), "rules": rules, **(found.said() if found else {})}, tables=tables
            ),
        )


def _keep_names(quantized: Path, original: Path) -> None:
    """The nodes that the quantizer made are named by the module that they serve; tensors in other files stay there."""
    import onnx

    from mlpack.stages.module_names import keep_module_names

    after = onnx.load(quantized, load_external_data=False)
    keep_module_names(after, onnx.load(original, load_external_data=False))
    onnx.save(after, quantized)
