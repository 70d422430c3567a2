"""`mlpack.predict()`: what an artifact's model answers on data, streamed into one `.npz`, `.csv` or `.jsonl`."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from mlpack.api.answers import SUFFIXES, Answers
from mlpack.api.lookup import artifact, intact_model, raw_options
from mlpack.core.filesystem import refused_by_machine, remove, sweep, sync, temporary_sibling
from mlpack.core.notebook import progress_in_notebooks
from mlpack.core.reporter import Reporter, Silent
from mlpack.core.settings import load_settings
from mlpack.core.summary import Told
from mlpack.core.wording import count
from mlpack.errors import StageFailed, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import BinaryIO

    import numpy as np

    from mlpack.core.dataset import Batch
    from mlpack.core.stage import Say
    from mlpack.core.summary import Part

_BATCH = 32


@dataclass(frozen=True)
class Predicted(Told):
    """What was written: `outputs` has dtype and shape of each array; `nonfinite` counts its samples with NaN.

    A table has `columns` in their place.
    """

    path: Path
    artifact: str
    backend: str
    batch: int
    samples: int
    outputs: dict[str, dict[str, Any]]
    nonfinite: dict[str, int]
    columns: tuple[str, ...] = ()

    def summary(self) -> Iterator[Part]:
        """How many samples, what came out, where it lies."""
        yield f"{count(self.samples, 'sample')} through {self.artifact} on {self.backend}, batch {self.batch}"
        for name, each in self.outputs.items():
            yield f"  {name}: {each['dtype']} {each['shape']}"
        if self.columns:
            yield f"  columns: {', '.join(self.columns)}"
        yield f"written to {self.path}"

    def document(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {**asdict(self), "path": str(self.path)}


@progress_in_notebooks
def predict(
    ref: str | None = None,
    *,
    data: str | Path,
    out: str | Path,
    batch: int | None = None,
    threads: int | None = None,
    columns: str | None = None,
    skip_bad: int = 0,
    force: bool = False,
    store: str | Path | None = None,
    reporter: Reporter | None = None,
) -> Predicted:
    """Run an artifact's model on its backend over data and write what it answers, in the order of the data.

    A `.npz` holds its outputs, first axis samples, by name; a `.csv` or `.jsonl` what the artifact's pipeline makes of
    them, such as labels. Texts and images are prepared by that pipeline; `columns` (`text=review`) says what a table
    holds where, if not as in the data that the artifact was made with.

    Labels in the data are ignored. The file appears whole or not at all; bfloat16, which .npz has no name for,
    is written as float32. A model whose answers depend on batch mates is run one sample at a time unless
    `batch` says otherwise.

    Raises:
        UsageError: an unknown artifact, or a file that is there already without `force`.
        DataError: the data cannot be used or does not fit the model.
        StageFailed: the backend refuses the model or these inputs.
        MachineError: the disk is full or the place cannot be written.
    """
    from mlpack.core.threads import usable_threads
    from mlpack.engine import process
    from mlpack.engine.job import with_path

    telling = reporter or Silent()
    if batch is not None and batch < 1:
        raise UsageError(f"--batch {batch} is no batch size", "--batch 1")
    place = Path(out).expanduser().absolute()
    _check_free(place, force=force)
    stored = artifact(ref, store)
    model = intact_model(stored)
    named = f"{stored.artifact.name}@{stored.artifact.version}"
    size = batch or _usual_batch(named, telling, depends=stored.artifact.accuracy.batch_dependent)
    cores = threads or load_settings(Path.cwd()).threads or usable_threads()
    pipeline = stored.artifact.pipeline
    raw = raw_options(stored, columns, skip_bad=skip_bad, order="rows")
    if place.suffix != ".npz" and (pipeline is None or pipeline.postprocess is None):
        raise UsageError(
            f"{named} does not say what its answers mean", f"--out {place.stem}.npz holds them as they are"
        )
    _make_parent(place)
    folder = temporary_sibling(place)
    try:
        arguments = {
            "model": with_path(model),
            "threads": cores,
            "data": str(data),
            "batch": size,
            "place": str(folder / f"outputs{place.suffix}"),
            "raw": None if raw is None else raw.model_dump(mode="json"),
            "pipeline": None if pipeline is None else str(stored.path / pipeline.path),
        }
        found = process.call("mlpack.api.predict:write_outputs", arguments, telling.say).value
        for note in found.pop("notes"):
            telling.warn(note)
        _check_free(place, force=force)
        with refused_by_machine(place):
            (folder / f"outputs{place.suffix}").replace(place)
            sync(place.parent)
    finally:
        remove(folder)
    assert model.backend is not None
    found["columns"] = tuple(found.get("columns", ()))
    done = Predicted(path=place, artifact=named, backend=model.backend, **found)
    for name, many in done.nonfinite.items():
        telling.warn(f"{many:,} of {done.samples:,} samples have NaN or infinity in output {name!r}")
    return done


def _usual_batch(named: str, telling: Reporter, *, depends: bool) -> int:
    if not depends:
        return _BATCH
    telling.stage_done(f"  answers of {named} depend on batch mates: running one sample at a time")
    return 1


def _check_free(place: Path, *, force: bool) -> None:
    if place.suffix not in {".npz", *SUFFIXES}:
        raise UsageError(f"{place} is no .npz, .csv or .jsonl", f"--out {place.name}.npz")
    if place.is_dir():
        raise UsageError(f"{place} is a folder", f"choose another file: --out {place.stem}-2{place.suffix}")
    if (place.exists() or place.is_symlink()) and not force:
        raise UsageError(
            f"{place} is there already",
            f"replace it with --force, or choose another: --out {place.stem}-2{place.suffix}",
        )


def _make_parent(place: Path) -> None:
    try:
        with refused_by_machine(place):
            place.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(f"{place} cannot be made: a part of its path is a file", "choose another --out") from error
    sweep(place.parent)


def write_outputs(
    say: Say,
    model: dict[str, Any],
    threads: int,
    data: str,
    batch: int,
    place: str,
    raw: dict[str, Any] | None,
    pipeline: str | None,
) -> dict[str, Any]:
    """Write the file. Runs in a process of its own: native libraries crash.

    Rows are appended as they come, so that memory holds one batch however large the data is.
    """
    from mlpack.backends import BACKENDS
    from mlpack.core.dataset import RawOptions
    from mlpack.core.model import Model
    from mlpack.core.targets import this_machine
    from mlpack.datasets import open_data
    from mlpack.stages.check_accuracy import run_over

    opened = Model.model_validate(model)
    assert opened.backend is not None
    say(f"reading {data}")
    dataset = open_data(data, opened.inputs, raw=RawOptions.model_validate(raw) if raw else None, say=say)
    options = opened.backend_options.with_threads(threads)
    path = Path(place)
    done = 0
    with (
        refused_by_machine(path),
        _Arrays(path, len(dataset)) if path.suffix == ".npz" else Answers(path, Path(pipeline or "")) as written,
        BACKENDS[opened.backend].open(opened, this_machine(), options) as runner,
    ):
        for rows, outputs in run_over(opened, runner, dataset, batch):
            written.append(rows, outputs)
            done += len(rows)
            say(f"predicting on {opened.backend}", done, len(dataset))
    return {
        "samples": done,
        "batch": batch if opened.dynamic_batch else int(opened.inputs[0].dims[0]),
        "notes": list(getattr(dataset, "notes", ())),
        **written.facts(),
    }


class _Arrays:
    """One `.npz` of all outputs, packed as it closes."""

    def __init__(self, path: Path, samples: int) -> None:
        self._path, self._samples = path, samples
        self._written: dict[str, _Growing] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in self._written.values():
            each.close()
        if kind is None:
            _pack(self._path, self._written)

    def append(self, batch: Batch, outputs: dict[str, np.ndarray]) -> None:
        """Add the answers to a batch."""
        for name, array in outputs.items():
            if name not in self._written:
                part = self._path.parent / f"{len(self._written)}.npy"
                self._written[name] = _Growing(name, part, array, self._samples)
            self._written[name].append(array, len(batch))

    def facts(self) -> dict[str, Any]:
        """What `Predicted` says of them."""
        outputs = {
            name: {"dtype": each.dtype.name, "shape": [self._samples, *each.dims]}
            for name, each in self._written.items()
        }
        return {
            "outputs": outputs,
            "nonfinite": {name: each.nonfinite for name, each in self._written.items() if each.nonfinite},
        }


class _Growing:
    """One output as a `.npy` that is written from its first row to its last."""

    def __init__(self, name: str, path: Path, first: np.ndarray, samples: int) -> None:
        import numpy as np

        self.name, self.path, self.nonfinite = name, path, 0
        self.dims = first.shape[1:]
        self.dtype: np.dtype[Any] = _storable(first).dtype
        self._stream: BinaryIO = path.open("wb")
        header = {
            "descr": np.lib.format.dtype_to_descr(self.dtype),
            "fortran_order": False,
            "shape": (samples, *self.dims),
        }
        np.lib.format.write_array_header_1_0(self._stream, header)

    def append(self, array: np.ndarray, rows: int) -> None:
        """Add the answers to `rows` samples."""
        import numpy as np

        if array.shape != (rows, *self.dims):
            raise StageFailed(
                f"output {self.name!r} is {list(array.shape)} for {rows} samples, where {[rows, *self.dims]} was "
                "expected: it cannot be one array",
                "pad the inputs to one size, or give a batch size that the model is made for: --batch 1",
            )
        storable = np.ascontiguousarray(_storable(array))
        if storable.dtype.kind == "f":
            self.nonfinite += int((~np.isfinite(storable)).reshape(rows, -1).any(axis=1).sum())
        self._stream.write(storable.tobytes())

    def close(self) -> None:
        """Write what is still in memory."""
        self._stream.close()


def _storable(array: np.ndarray) -> np.ndarray:
    return array.astype("float32") if array.dtype.name == "bfloat16" else array


def _pack(path: Path, written: dict[str, _Growing]) -> None:
    import shutil
    import zipfile

    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, each in written.items():
            with each.path.open("rb") as source, archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                shutil.copyfileobj(source, entry, 1 << 20)
            each.path.unlink()
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
