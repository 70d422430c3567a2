"""`mlpack.convert()`: a model as a file for devices that mlpack does not serve, with what is known of it here."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlpack.api.flags import with_set
from mlpack.api.wanted import Wanted, recipe_for
from mlpack.core.notebook import progress_in_notebooks
from mlpack.core.recipe import Step
from mlpack.core.reporter import Reporter, Silent
from mlpack.core.settings import load_settings
from mlpack.core.summary import Facts, Told
from mlpack.core.wording import size
from mlpack.errors import UsageError, unknown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mlpack.core.summary import Part
    from mlpack.engine.cache import Done

FORMATS = {"coreml": "convert_coreml", "litert": "convert_litert"}
"""The formats, and the stage that makes each."""
RECORD = "conversion.json"


@dataclass(frozen=True)
class Converted(Told):
    """The folder that was written and the file in it.

    `not_run_here` says why nothing is known of its answers; else `differences` has how far each output is from the
    original's (relative L2).
    """

    path: Path
    format: str
    file: str
    numerics: str
    size_bytes: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    not_run_here: str | None
    differences: dict[str, float]

    def document(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {**asdict(self), "path": str(self.path)}

    def summary(self) -> Iterator[Part]:
        """What it is, and what is not known of it."""
        yield f"{self.path / self.file}: {self.format}, {self.numerics}, {size(self.size_bytes)}"
        yield Facts((("takes", self.inputs), ("gives", self.outputs)))
        if self.not_run_here is not None:
            yield f"not run here: {self.not_run_here}"
        for name, gap in self.differences.items():
            yield f"run here: output {name} differs from the original's by {gap:.1e} (relative L2)"


@progress_in_notebooks
def convert(
    model: str | Path | None = None,
    *,
    to: str,
    out: str | Path | None = None,
    data: str | Path | None = None,
    inputs: Sequence[str] = (),
    factory: str | None = None,
    allow_pickle: bool = False,
    settings: Sequence[str] = (),
    reporter: Reporter | None = None,
) -> Converted:
    """Write a torch model as a file of another format, beside a record of what it was made of and by what.

    `to` is a format (`coreml`, `litert`), `out` a folder that is not there yet (default: `./NAME-FORMAT`). `data` gives
    rows to export on, else they are synthetic. `settings` are `stage.option=value`, as in
    `convert_coreml.precision=float16`.

    Raises:
        UsageError: an unknown format, or a folder that is there already.
        ModelError, DataError: what was handed in cannot be used.
        MissingLibrary: the converter is not installed.
        StageFailed: it has no translation for this model.
    """
    from mlpack.api.optimize import name_for
    from mlpack.api.prepare import prepare
    from mlpack.engine.run import run
    from mlpack.engine.validate import check_takes, options_of

    if to not in FORMATS:
        raise unknown("format", to, FORMATS)
    known = load_settings(Path.cwd())
    wanted = Wanted(data=data, inputs=inputs, factory=factory, allow_pickle=allow_pickle)
    recipe = recipe_for(known, model, wanted)
    recipe = with_set(recipe.model_copy(update={"steps": (Step(stage=FORMATS[to]),), "beside": ()}), settings)
    stage = options_of(recipe.steps[0])
    place = Path(out or f"{name_for(recipe.source.model)}-{to}").expanduser().absolute()
    if place.exists() or place.is_symlink():
        raise UsageError(f"{place} is there already", "choose another folder with --out")
    ready = prepare(recipe, known.cache, reporter or Silent())
    check_takes(stage, ready.baseline.format)
    done = run(stage, ready.baseline, ready.context, label=f"convert to {to}")
    _write(done, to, place, {"path": recipe.source.model, "sha256": ready.source.report.metrics["sha256"]})
    made = done.model
    return Converted(
        path=place,
        format=to,
        file=made.entry,
        numerics=made.numerics,
        size_bytes=made.size_bytes,
        inputs=tuple(str(spec) for spec in made.inputs),
        outputs=tuple(str(spec) for spec in made.outputs),
        not_run_here=done.report.metrics.get("not_run_here"),
        differences=done.report.metrics.get("differences", {}),
    )


def _write(done: Done, to: str, place: Path, source: dict[str, Any]) -> None:
    """The files, then the record, then the folder's own name: one that is there is whole."""
    import mlpack
    from mlpack.core.filesystem import make_folder, refused_by_machine, temporary_sibling

    record = {
        "format": to,
        "file": done.model.entry,
        "source": source,
        "numerics": done.model.numerics,
        "inputs": [spec.model_dump(mode="json") for spec in done.model.inputs],
        "outputs": [spec.model_dump(mode="json") for spec in done.model.outputs],
        **done.report.metrics,
        "options": done.options,
        "libraries": done.ingredients["libraries"],
        "mlpack_version": mlpack.__version__,
        "files": done.model.digests(),
    }
    make_folder(place.parent)
    work = temporary_sibling(place)
    with refused_by_machine(place):
        shutil.copytree(done.model.path, work, dirs_exist_ok=True)
        (work / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        work.rename(place)
