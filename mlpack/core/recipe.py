"""Recipe: source, data, target, steps, limit and budget, as YAML and as frozen pydantic."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_serializer, model_validator

from mlpack.core.words import Frozen

Weights = Literal["auto", "memory", "disk"]


class Step(Frozen):
    """A stage by name with its options. In YAML: `- export` or `- quantize: {numerics: int8}`.

    An `optional` step is tried both ways: with it and without it.
    """

    stage: str
    options: dict[str, Any] = Field(default_factory=dict)
    optional: bool = False

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"stage": value}
        if isinstance(value, dict) and "stage" not in value:
            optional = value.get("optional", False)
            named = {key: options for key, options in value.items() if key != "optional"}
            if len(named) != 1:
                raise ValueError("a step is one stage name with its options, such as 'quantize: {numerics: int8}'")
            ((stage, options),) = named.items()
            return {"stage": stage, "options": options or {}, "optional": optional}
        return value

    @model_serializer
    def _to_short_form(self) -> Any:
        body: dict[str, Any] = {self.stage: self.options}
        return {**body, "optional": True} if self.optional else body


class SourceSpec(Frozen):
    """What the user hands in, as a path or `package.module:function`, and how to read it."""

    model: str
    factory: str | None = None
    inputs: tuple[str, ...] = ()
    static_batch: bool = False
    allow_pickle: bool = False
    weights: Weights = Field(
        default="auto",
        description="of a Hugging Face folder: in memory together, or read from the disk as they are needed; auto: "
        "from the disk where three times their size in float32 is more than this machine's memory",
    )


class DataSpec(Frozen):
    """Evaluation data, optional calibration and training data, and the metric they are judged by.

    Texts and images also say what comes before the model (`tokenizer`, `preprocess`) and after it (`postprocess`).
    """

    evaluation: str | None = None
    calibration: str | None = None
    train: str | None = None
    metric: str | None = None
    output: str | None = None
    tokenizer: str | None = None
    columns: str | None = None
    preprocess: str | None = None
    postprocess: str | None = None
    labels: str | None = None
    max_length: int | None = Field(default=None, ge=1)
    skip_bad: int | None = Field(default=None, ge=0)


class Recipe(Frozen):
    """All that a run depends on. `steps` make candidates; `accuracy`, `latency` and `golden` measure them."""

    name: str | None = None
    source: SourceSpec
    data: DataSpec = DataSpec()
    target: str = "cpu"
    steps: tuple[Step, ...]
    beside: tuple[tuple[Step, ...], ...] = Field(
        default=(), description="other lists of steps, whose candidates compete with those of `steps`"
    )
    accuracy: Step
    latency: Step
    golden: Step
    limit: str | None = Field(default=None, description="1% relative, 0.8pt absolute; None: no limit")
    promise: str | None = Field(default=None, description="numerics that the result must really be in")
    auto: bool = Field(default=False, description="also make milder forms of what is faster and misses the limit")
    smallest: bool = Field(default=False, description="of all inside the limit take the smallest, not the fastest")
    time_limit: str | None = Field(default=None, description="90s, 20m, 1.5h: then the best so far is taken")
    threads: int | None = Field(default=None, ge=1)
    seed: int = 0
