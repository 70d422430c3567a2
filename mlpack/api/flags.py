"""Flags to Recipe: a pure function, and the reading of recipe files."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from mlpack.api.contenders import EVERY
from mlpack.api.pruning import pruned_steps
from mlpack.api.training import trained_steps
from mlpack.backends import runs
from mlpack.core.model import Format
from mlpack.core.recipe import DataSpec, Recipe, SourceSpec, Step
from mlpack.engine.validate import explained
from mlpack.errors import RecipeError, UsageError, unknown
from mlpack.stages import STAGES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Numerics = Literal["fp16", "bf16", "int8", "int4", "fp8"]
NO_LIMIT = "none"
DEFAULT_LIMIT = "1%"
AGREEMENT_LIMIT = "5%"
_EVALUATION_BATCH = 32
_ENGINE = "build_engine"
_WITHOUT_RANGES = {"fp16", "bf16", "int4"}
_RUN_GRAPHS = {None, EVERY, *runs("onnx")}


def recipe_of(
    source: SourceSpec,
    data: DataSpec,
    *,
    numerics: Numerics | None,
    prune: str | None,
    force: bool,
    target: str,
    limit: str | None,
    calibration_method: str | None,
    ranges: str | None,
    auto: bool,
    smallest: bool,
    time_limit: str | None,
    backend: str | None,
    distill: bool,
    student: str | None,
    threads: int | None,
    seed: int,
    name: str | None,
) -> Recipe:
    """The recipe that these flags mean. Without numerics every kind that the target gains from is tried.

    Raises:
        UsageError: int8 with neither data nor random calibration, a backend that no artifact is made for, or a share
            to prune that is none.
    """
    blind = data.evaluation is None and data.calibration is None
    if numerics in {"int8", "fp8"} and blind:
        raise UsageError(
            f"{numerics} needs data to find ranges on and to be judged by",
            "give labelled data with --data FILE.npz, or try the mechanics with --calibration random:64",
        )
    quantize = _quantized(numerics, blind=blind, calibration_method=calibration_method, ranges=ranges)
    if not blind and limit != NO_LIMIT and (auto or numerics == "int8"):
        quantize |= _trained(data)
    steps: tuple[Step, ...] = (
        Step(stage="export"),
        Step(stage="simplify"),
        Step(stage="quantize", options=quantize, optional=True),
        Step(stage="compile", options={"backend": backend} if backend in runs("onnx") else {}),
    )
    if backend in runs("tensorrt"):
        steps = (*steps[:-1], Step(stage=_ENGINE), Step(stage="compile", options={"backend": backend}))
    elif backend is not None and backend not in {*runs("onnx"), EVERY}:
        steps = _by_torch(backend, numerics)
    beside = (
        *(_beside_onnx(numerics) if backend == EVERY and numerics in {None, "bf16"} else ()),
        *((_in_four_bits(steps, blind=blind),) if smallest and numerics is None and backend in _RUN_GRAPHS else ()),
    )
    pruned = pruned_steps(prune, data, force=force)
    smaller = (*pruned, *trained_steps(data, distill=distill, student=student, changed=bool(pruned)))
    if auto and smaller:
        beside = (*beside, *((*smaller, *each) for each in (steps, *beside)))
    elif smaller:
        steps, beside = (*smaller, *steps), tuple((*smaller, *each) for each in beside)
    return Recipe(
        name=name,
        source=source,
        data=data,
        target=target,
        steps=steps,
        beside=beside,
        accuracy=Step(stage="check_accuracy", options={"batch": _EVALUATION_BATCH}),
        latency=Step(stage="profile_latency"),
        golden=Step(stage="golden"),
        limit=limit,
        promise=numerics,
        auto=auto,
        smallest=smallest,
        time_limit=time_limit,
        threads=threads,
        seed=seed,
    )


def _quantized(
    numerics: Numerics | None, *, blind: bool, calibration_method: str | None, ranges: str | None
) -> dict[str, Any]:
    """The options of the quantize step.

    Raises:
        UsageError: a way to find ranges for numerics that have none, were it the one that is the default.
    """
    options: dict[str, Any] = {"numerics": numerics or "auto"}
    if blind and numerics is None:
        options["method"] = "cast"
    if blind and numerics == "int4":
        # Of what needs no rows: nothing is there to choose by.
        options["method"] = "hqq"
    if calibration_method is not None:
        if numerics in _WITHOUT_RANGES:
            raise UsageError(f"--calibration-method finds ranges, and --{numerics} has none", "leave it out")
        options["calibration_method"] = calibration_method
    if ranges is not None:
        options["ranges"] = ranges
    return options


def _trained(data: DataSpec) -> dict[str, Any]:
    """The options of int8 that is trained where it misses the limit; none where there is nothing to train on."""
    if data.train is None:
        return {}
    return {"train": "needed", **({"training": {"output": data.output}} if data.output else {})}


# The stages that make what torch itself runs, by the format of the file; the user's code is in none of them.
_MADE_BY_TORCH: dict[Format, str] = {"aotinductor": "compile_ahead", "torchscript": "trace_module"}


def _by_torch(backend: str, numerics: Numerics | None) -> tuple[Step, ...]:
    """The steps whose result this backend runs.

    Raises:
        UsageError: no artifact is run by this backend, or not in these numerics.
    """
    made = next((stage for model_format, stage in _MADE_BY_TORCH.items() if backend in runs(model_format)), None)
    if made is None and backend in runs("torch"):
        raise UsageError(
            f"{backend} runs a module with the user's code, which no artifact is",
            "--backend aotinductor makes a file by the same compiler; mlpack bench MODEL times modules too",
        )
    if made is None:
        by_torch = chain.from_iterable(runs(each) for each in _MADE_BY_TORCH)
        raise unknown("backend", backend, (*runs("onnx"), *runs("tensorrt"), *by_torch, EVERY))
    if numerics not in {None, "bf16"}:
        raise UsageError(
            f"{backend} is given fp32 and bf16 models, not {numerics}", f"leave --{numerics} or --backend {backend} out"
        )
    return (
        Step(stage=made, options={"numerics": numerics} if numerics else {}),
        Step(stage="compile", options={"backend": backend}),
    )


def _in_four_bits(steps: tuple[Step, ...], *, blind: bool) -> tuple[Step, ...]:
    """The steps with weights in blocks of four bits: what is smallest, and seldom the fastest."""
    quantize = Step(stage="quantize", options={"numerics": "int4", **({"method": "hqq"} if blind else {})})
    return tuple(quantize if step.stage == quantize.stage else step for step in steps)


def _beside_onnx(numerics: Numerics | None) -> tuple[tuple[Step, ...], ...]:
    """The lists of steps that end in files of torch's own."""
    return tuple(_by_torch(runs(model_format)[0], numerics) for model_format in _MADE_BY_TORCH)


def with_set(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """The recipe with `--set stage.option=value` applied; values are YAML (`false`, `16`, `[1, 8]`).

    Raises:
        UsageError: not of that form, or no step has this stage.
    """
    for setting in settings:
        path, equals, text = setting.partition("=")
        stage, dot, option = path.partition(".")
        if not (equals and dot and stage and option):
            raise UsageError(f"--set {setting!r} is not stage.option=value", "--set quantize.per_channel=false")
        import yaml

        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UsageError(f"--set {setting!r}: the value is no YAML", "--set quantize.per_channel=false") from error
        recipe = _set_one(recipe, stage, option, value)
    return recipe


def _set_one(recipe: Recipe, stage: str, option: str, value: Any) -> Recipe:
    def changed(step: Step) -> Step:
        if step.stage != stage:
            return step
        return step.model_copy(update={"options": _with(step.options, option.split("."), value)})

    measuring = {name: getattr(recipe, name) for name in ("accuracy", "latency", "golden")}
    steps = (*recipe.steps, *chain.from_iterable(recipe.beside), *measuring.values())
    if stage not in {step.stage for step in steps}:
        names = ", ".join(dict.fromkeys(step.stage for step in steps))
        raise UsageError(f"--set {stage}.{option}: the recipe has no step {stage!r}", f"its steps: {names}")
    return recipe.model_copy(
        update={
            "steps": tuple(changed(step) for step in recipe.steps),
            "beside": tuple(tuple(changed(step) for step in steps) for steps in recipe.beside),
            **{name: changed(step) for name, step in measuring.items()},
        }
    )


def _with(options: Mapping[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    """The options with one of them set, or an option of one of them."""
    first, *rest = path
    within = options.get(first)
    return {**options, first: _with(within if isinstance(within, dict) else {}, rest, value) if rest else value}


def spanned(recipe: Recipe) -> Recipe:
    """The recipe with engines built for the batches that it measures, where it does not say for which.

    From one sample, as golden inputs are replayed, to the largest batch that is timed or scored; tuned for the middle
    one of those that are timed.
    """
    if all(step.stage != _ENGINE for step in recipe.steps):
        return recipe
    timed, scored = sorted(_sizes(recipe.latency, "batches")), _sizes(recipe.accuracy, "batch")
    if not timed:
        return recipe
    sizes = [1, timed[len(timed) // 2], max(*timed, *scored)]

    def built_for(step: Step) -> Step:
        return (
            step.model_copy(update={"options": {"batches": sizes, **step.options}}) if step.stage == _ENGINE else step
        )

    return recipe.model_copy(update={"steps": tuple(built_for(step) for step in recipe.steps)})


def _sizes(step: Step, option: str) -> tuple[int, ...]:
    """The batch sizes of a measuring step, its own or the usual ones; what is no size is refused with the step."""
    field = STAGES[step.stage].model_fields.get(option) if step.stage in STAGES else None
    told = step.options.get(option, field.default if field else ())
    return tuple(
        each for each in (told if isinstance(told, list | tuple) else [told]) if type(each) is int and each > 0
    )


def read_recipe(path: Path, flags: Mapping[str, Any], usual: Mapping[str, Any]) -> Recipe:
    """A recipe file. `flags` win over what it says; `usual` settings and defaults fill in what it leaves out.

    Paths in a recipe are relative to the folder that mlpack is run from, unless they only exist beside the file.

    Raises:
        RecipeError: not YAML, or a key or value that does not belong.
    """
    import yaml

    if not path.is_file():
        raise RecipeError(f"there is no recipe {path}", "mlpack recipes lists those that come with mlpack")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not YAML: {str(error).splitlines()[0]}", f"correct {path}") from error
    if not isinstance(content, dict):
        raise RecipeError(f"{path} holds no recipe", "it needs at least `source: {model: …}` and `steps:`")
    filled: dict[str, Any] = {
        "accuracy": {"check_accuracy": {"batch": _EVALUATION_BATCH}},
        "latency": "profile_latency",
        "golden": "golden",
    }
    for layer in (usual, content, flags):
        filled = _over(filled, layer)
    filled["source"] = _beside(filled.get("source"), path, ("model", "factory"))
    filled["data"] = _beside(
        filled.get("data") or {},
        path,
        ("evaluation", "calibration", "train", "metric", "tokenizer", "preprocess", "postprocess"),
    )
    try:
        recipe = Recipe.model_validate(filled)
    except ValidationError as error:
        raise explained(error, str(path), Recipe) from error
    beside = tuple(_steps_beside(steps, path) for steps in recipe.beside)
    return recipe.model_copy(update={"steps": _steps_beside(recipe.steps, path), "beside": beside})


def _over(below: dict[str, Any], layer: Mapping[Any, Any]) -> dict[str, Any]:
    """`below` with what the layer gives; in `source` and `data` key by key. What is empty was not given."""
    merged = dict(below)
    for key, value in layer.items():
        if key in {"source", "data"} and isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = {**merged[key], **{name: each for name, each in value.items() if each}}
        elif value is not None and value != 0:
            merged[key] = value
    return merged


def _steps_beside(steps: Sequence[Step], recipe: Path) -> tuple[Step, ...]:
    return tuple(step.model_copy(update={"options": _beside(step.options, recipe, ("student",))}) for step in steps)


def _beside(table: Any, recipe: Path, keys: tuple[str, ...]) -> Any:
    if not isinstance(table, dict):
        return table
    found = dict(table)
    for key in keys:
        text = table.get(key)
        if not isinstance(text, str):
            continue
        place, colon, function = text.partition(":")
        if not Path(place).exists() and (recipe.parent / place).exists():
            found[key] = f"{recipe.parent / place}{colon}{function}"
    return found
