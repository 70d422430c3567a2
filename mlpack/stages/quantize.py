"""quantize: fp16, bf16, int8, int4 or fp8 numerics written into the ONNX graph, by the rules of the target."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from mlpack.core.model import Model, Quantization
from mlpack.core.report import Report
from mlpack.core.stage import Outcome, Stage
from mlpack.errors import StageFailed, UsageError
from mlpack.stages.quantize_clashes import clash, lacking_on_cards
from mlpack.stages.quantize_training import QuantizedTraining

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from mlpack.core.dataset import Part
    from mlpack.core.model import Format
    from mlpack.core.stage import Job
    from mlpack.core.target import Target

Method = Literal["auto", "cast", "dynamic", "static", "rtn", "hqq", "gptq"]
Operators = Literal["auto", "all", "weighted"]
CalibrationMethod = Literal["minmax", "moving_average", "percentile", "entropy", "mse"]
Train = Literal["never", "needed", "always"]


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
        "mlpack.stages.quantize_train", "mlpack.stages.quantize_training", "mlpack.training",
        "mlpack.backends.torch_runner", "mlpack.core.external_data",
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
    train: Train = Field(
        default="never",
        description="static int8: train the quantized graph on the training data, where it misses the limit or always",
    )
    training: QuantizedTraining = Field(default=QuantizedTraining(), description="how it is trained")
    exclude: tuple[str, ...] = Field(
        default=(), description="int8, int4: module paths or node names to leave in float, with all that lies in them"
    )
    block: Literal[16, 32, 64, 128] | None = Field(
        default=None, description="int4: weights that share a scale; none: 32, with method: auto 128 too, on NVIDIA 128"
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
        """A file of ranges counts by what is in it; training where there is some, not how often it is kept."""
        from mlpack.quantization.range_table import read_ranges

        options = super().keyed()
        if self.ranges is not None:
            options["ranges"] = read_ranges(Path(self.ranges)).model_dump(mode="json")
        if self.train == "always":
            options["training"] = self.training.model_dump(mode="json", exclude=set(self.training.of_no_effect))
        else:
            del options["train"], options["training"]
        return options

    def counts_threads(self) -> bool:
        """Where it is trained: sums in another order end in other weights."""
        return self.train == "always"

    def needs(self) -> tuple[str, ...]:
        """Torch where it is trained; SciPy's linear algebra for GPTQ."""
        more = (("torch", self.train == "always"), ("scipy", self.method == "gptq"))
        return (*self.libraries, *(library for library, used in more if used))

    def reads(self) -> tuple[Part, ...]:
        """Calibration rows: to find ranges on, and to count the compute that changed; and what is trained on."""
        return ("calibration", "train") if self.train == "always" else ("calibration",)

    def trains(self) -> bool:
        """Always, or where the limit is missed."""
        return self.train != "never"

    def imports(self, model: Model | None) -> tuple[str, ...]:
        """What trains."""
        del model
        return ("torch",) if self.train == "always" else ()

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
        from mlpack.stages.quantize_flavours import flavours

        return flavours(self, model, target)

    def diagnosis(self) -> tuple[Stage, ...]:
        """What each layer costs in accuracy, and for int8 what it gains in time; int4 gains bytes."""
        from mlpack.stages.measure_sensitivity import MeasureSensitivity
        from mlpack.stages.time_layers import TimeLayers

        measured: dict[str, tuple[Stage, ...]]
        measured = {"int8": (MeasureSensitivity(), TimeLayers()), "int4": (MeasureSensitivity(),)}
        return measured.get(self.numerics, ())

    def milder(self, reports: Mapping[str, Report], excess: float) -> Generator[Stage, float, None]:
        """Corrections and training, which cost no speed; then the fewest, cheapest layers less quantized."""
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
        from mlpack.quantization.range_table import TABLE
        from mlpack.quantization.ranges import calibration_ranges
        from mlpack.stages import samples

        if model.on_disk and self.numerics != "int4":
            raise StageFailed(
                f"weights that stay on the disk are not turned into {self.numerics}, which would hold all of them",
                "--int4 takes one after the other",
            )
        rules = job.target.rules
        said, only = Report(), model.only
        if self.numerics == "int4":
            from mlpack.stages.quantize_int4 import served_by, weight_only

            said = Report(tables={"weights": weight_only(model, job, self)})
            only = served_by(model, job, self)
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
            said = self._static(model, job)
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
        untrained = {"train", "training"} if self.train != "always" else set()
        details = self.model_dump(mode="json", exclude={"numerics", "method", *untrained})
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
            TABLE: [],
            "weights": [],
            **said.tables,
        }
        return Outcome(
            model=quantized,
            report=Report(metrics={"share": round(changed, 4), "rules": rules, **said.metrics}, tables=tables),
        )

    def _static(self, model: Model, job: Job) -> Report:
        """Static int8 or fp8: the ranges that were found, and how the graph was trained, where it was."""
        from mlpack.quantization.range_table import TABLE
        from mlpack.stages.quantize_int8 import lookups, static

        found = static(model, job, self)
        metrics, tables = found.said(), {TABLE: found.rows()}
        if self.numerics == "fp8":
            from mlpack.quantization.float8 import to_e4m3

            to_e4m3(job.out / model.entry)
        if self.train == "always":
            from mlpack.stages.quantize_train import train_quantized

            trained = train_quantized(model, job, self)
            metrics, tables = {**metrics, **trained.metrics}, {**tables, **trained.tables}
        if self.numerics == "int8":
            lookups(model, job, self)
        return Report(metrics=metrics, tables=tables)


def _keep_names(quantized: Path, original: Path) -> None:
    """The nodes that the quantizer made are named by the module that they serve; tensors in other files stay there."""
    import onnx

    from mlpack.stages.module_names import keep_module_names

    after = onnx.load(quantized, load_external_data=False)
    keep_module_names(after, onnx.load(original, load_external_data=False))
    onnx.save(after, quantized)
