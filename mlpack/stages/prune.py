"""prune: a torch module loses channels, neurons, heads or layers that it can do without, or gets zeros for weights."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator

from mlpack.core.installation import DISTRIBUTION
from mlpack.core.loader import Loader
from mlpack.core.stage import Outcome, Stage
from mlpack.errors import MissingLibrary, ModelError
from mlpack.stages.torch_imports import imports_of

if TYPE_CHECKING:
    from mlpack.core.dataset import Part
    from mlpack.core.model import Format, Model
    from mlpack.core.stage import Job
    from mlpack.core.target import Target

Kind = Literal["channels", "neurons", "heads"]
_LACKING = ("pruning needs the library torch-pruning", f"pip install '{DISTRIBUTION}[prune]'")
_MODULE = "hand in the module: file.py:function, a state dict with --factory, or a Hugging Face folder"
# What masks leave no use for.
_STRUCTURED_ONLY = ("layers", "scope", "kinds", "most", "multiple", "norms")
_HALF = 0.5
_SIXTIES = 2 * 60 + 4


class Prune(Stage):
    """Make a module smaller before it is exported: what is worth least goes, until a share of the FLOPs is gone.

    `structured` narrows layers, in all places that hang together, and takes whole layers out: what is left is a smaller
    module, which every runtime gains from. Inputs and outputs stay as they are. Masks put zeros in place of weights.
    Without training afterwards accuracy falls.
    """

    name: ClassVar[str] = "prune"
    accepts: ClassVar[tuple[Format, ...]] = ("torch",)
    gives: ClassVar[Format | None] = "torch"
    libraries: ClassVar[tuple[str, ...]] = ("torch", "torch_pruning")
    code: ClassVar[tuple[str, ...]] = (
        "mlpack.pruning", "mlpack.stages.prune_module", "mlpack.stages.prune_latency", "mlpack.stages.prune_rows",
        "mlpack.stages.samples", "mlpack.training.losses", "mlpack.backends.torch_changed",
        "mlpack.backends.torch_loader", "mlpack.backends.torch_modes", "mlpack.backends.torch_surgery",
        "mlpack.core.weights",
    )  # fmt: skip
    # Sums come out otherwise with other threads, and so do the times of layers.
    keyed_by_threads: ClassVar[bool] = True

    amount: float = Field(
        gt=0, lt=1, description="share of the FLOPs (multiply-adds of convolutions and products) to go; of masks, the "
        "share of the weights that become zero",
    )  # fmt: skip
    pattern: Literal["structured", "unstructured", "2:4"] = Field(
        default="structured", description="smaller layers; or zeros anywhere, or two in every four weights"
    )
    criterion: Literal["taylor", "magnitude", "latency"] = Field(
        default="taylor", description="what a unit is worth: the likelihood of the model's own answers that goes with "
        "it, the norm of its weights, or the former by the time that it takes here",
    )  # fmt: skip
    scope: Literal["global", "uniform"] = Field(
        default="global", description="units compete across layers, or every layer loses the same share"
    )
    kinds: tuple[Kind, ...] = Field(
        default=("channels", "neurons", "heads"), min_length=1,
        description="what may go: channels of convolutions, neurons of linear layers, heads of attentions",
    )  # fmt: skip
    layers: int = Field(default=0, ge=0, description="whole layers to take out of lists of like ones, before the rest")
    most: float = Field(default=0.8, gt=0, lt=1, description="largest share of one group of layers that may go")
    multiple: int | None = Field(
        default=None, ge=1, description="widths stay multiples of it, narrow ones of less; None: what the target likes"
    )
    norms: Literal["measured", "kept"] = Field(
        default="measured",
        description="statistics of batch norms: anew on the rows, if they are 32 real ones or more, or as before",
    )
    exclude: tuple[str, ...] = Field(default=(), description="module paths to leave as they are, with all in them")
    samples: int = Field(default=256, ge=1, description="rows that tell what a unit is worth")
    output: str | None = Field(
        default=None, description="the output that the labels of training rows belong to; None: the one that they fit"
    )
    force: bool = Field(default=False, description="masks also for targets that are no faster with them")

    @field_validator("pattern", mode="before")
    @classmethod
    def _unquoted(cls, value: Any) -> Any:
        # YAML takes what nobody quotes for a number to the base of sixty.
        return "2:4" if value == _SIXTIES else value

    def reads(self) -> tuple[Part, ...]:
        """Rows that tell what a unit is worth: training rows where they have labels that fit."""
        return ("calibration", "train")

    def imports(self, model: Model | None) -> tuple[str, ...]:
        """Those of a torch model."""
        return imports_of(model)

    def clash(self) -> str | None:
        """What only narrower layers have, beside masks."""
        if self.pattern == "structured":
            return "force is for masks, and structured pruning makes none" if self.force else None
        set_apart = [name for name in _STRUCTURED_ONLY if getattr(self, name) != type(self).model_fields[name].default]
        if set_apart:
            return f"{' and '.join(set_apart)} {'are' if set_apart[1:] else 'is'} for pattern: structured alone"
        if self.criterion == "latency":
            return "criterion: latency is for pattern: structured alone"
        if self.pattern == "2:4" and self.amount != _HALF:
            return f"pattern 2:4 is half of the weights: amount: 0.5, and this is {self.amount:g}"
        return None

    def refusal(self, target: Target) -> str | None:
        """A mask that makes nothing faster, and times that cannot be measured."""
        if self.criterion == "latency" and not target.here:
            return "criterion: latency times layers on this machine, and the target is another"
        if self.force or self.pattern == "structured":
            return None
        if self.pattern == "unstructured":
            return f"no runtime for {target.title} skips zeros anywhere in the weights: --force makes the mask anyway"
        if not target.sparse_peak:
            return (
                f"{target.title} is no faster with 2:4 sparsity, which NVIDIA cards of compute capability 8.0 and "
                "later have: --force makes the mask anyway"
            )
        return None

    def lacks(self) -> str | None:
        """Torch-pruning, which finds what hangs together."""
        if self.pattern != "structured" or importlib.util.find_spec("torch_pruning"):
            return None
        return ": ".join(_LACKING)

    def propose(self, model: Model, target: Target) -> tuple[Stage, ...]:
        """This one.

        Raises:
            ModelError: the model has no module that could be pruned.
        """
        del target
        fixed = Loader.read(model.path).unchangeable
        if fixed is not None:
            raise ModelError(f"prune: there is no module that could be smaller: {fixed}", _MODULE)
        return (self,)

    def run(self, model: Model | None, job: Job) -> Outcome:
        """Prune, and keep the module with what was changed in it.

        Raises:
            MissingLibrary: torch-pruning is not installed.
            ModelError: what was handed in gives no module.
            StageFailed: the module cannot be followed, or so much cannot go.
        """
        assert model is not None
        if self.lacks() is not None:
            raise MissingLibrary(*_LACKING)
        from mlpack.backends.torch_changed import changeable, save_changed
        from mlpack.backends.torch_loader import load_inner
        from mlpack.backends.torch_runner import threads
        from mlpack.core.backend_options import BackendOptions
        from mlpack.stages.prune_module import masked, narrowed

        with threads(BackendOptions(threads=job.threads)):
            module = load_inner(model.path, changeable(model))
            made, report = (narrowed if self.pattern == "structured" else masked)(module, model, self, job)
            return Outcome(model=save_changed(model, made, job.out), report=report)
