"""`mlpack.predict()`: what an artifact's model answers on data, streamed into one `.npz`."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlpack.api.lookup import artifact, intact_model
from mlpack.core.filesystem import refused_by_machine, remove, sweep, sync, temporary_sibling
from mlpack.core.notebook import progress_in_notebooks
from mlpack.core.reporter import Reporter, Silent
from mlpack.core.settings import load_settings
from mlpack.core.summary import Told
from mlpack.core.wording import count
from mlpack.errors import StageFailed, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    import numpy as np

    from mlpack.core.stage import Say
    from mlpack.core.summary import Part

_BATCH = 32


@dataclass(frozen=True)
class Predicted(Told):
    """What was written: `outputs` has dtype and shape of each array; `nonfinite` counts its samples with NaN."""

    path: Path
    artifact: str
    backend: str
    batch: int
    samples: int
    outputs: dict[str, dict[str, Any]]
    nonfinite: dict[str, int]

    def summary(self) -> Iterator[Part]:
        """How many samples, what came out, where it lies."""
        yield f"{count(self.samples, 'sample')} through {self.artifact} on {self.backend}, batch {self.batch}"
        for name, each in self.outputs.items():
            yield f"  {name}: {each['dtype']} {each['shape']}"
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
    force: bool = False,
    store: str | Path | None = None,
    reporter: Reporter | None = None,
) -> Predicted:
    """Run an artifact's model on its backend over data and write its outputs, first axis samples, by name.

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
    _make_parent(place)
    folder = temporary_sibling(place)
    try:
        arguments = {
            "model": with_path(model),
            "threads": cores,
            "data": str(data),
            "batch": size,
            "folder": str(folder),
        }
        found = process.call("mlpack.api.predict:write_outputs", arguments, telling.say).value
        _check_free(place, force=force)
        with refused_by_machine(place):
            (folder / "outputs.npz").replace(place)
            sync(place.parent)
    finally:
        remove(folder)
    assert model.backend is not None
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
    if place.suffix != ".npz":
        raise UsageError(f"{place} is no .npz", f"--out {place.name}.npz")
    if place.is_dir():
        raise UsageError(f"{place} is a folder", f"choose another file: --out {place.stem}-2.npz")
    if (place.exists() or place.is_symlink()) and not force:
        raise UsageError(
            f"{place} is there already", f"replace it with --force, or choose another: --out {place.stem}-2.npz"
        )


def _make_parent(place: Path) -> None:
    try:
        with refused_by_machine(place):
            place.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(f"{place} cannot be made: a part of its path is a file", "choose another --out") from error
    sweep(place.parent)


def write_outputs(say: Say, model: dict[str, Any], threads: int, data: str, batch: int, folder: str) -> dict[str, Any]:
    """Write `outputs.npz` into the folder. Runs in a process of its own: native libraries crash.

    Rows are appended to one file per output, so that memory holds one batch however large the data is.
    """
    from mlpack.backends import BACKENDS
    from mlpack.core.model import Model
    from mlpack.core.targets import this_machine
    from mlpack.datasets import open_data
    from mlpack.stages.check_accuracy import run_over

    opened = Model.model_validate(model)
    assert opened.backend is not None
    say(f"reading {data}")
    dataset = open_data(data, opened.inputs)
    options = opened.backend_options.model_copy(update={"threads": threads})
    written: dict[str, _Growing] = {}
    place = Path(folder)
    done = 0
    try:
        with (
            refused_by_machine(place),
            BACKENDS[opened.backend].open(opened, this_machine(), options) as runner,
        ):
            for rows, outputs in run_over(opened, runner, dataset, batch):
                for name, array in outputs.items():
                    if name not in written:
                        written[name] = _Growing(name, place / f"{len(written)}.npy", array, len(dataset))
                    written[name].append(array, len(rows))
                done += len(rows)
                say(f"predicting on {opened.backend}", done, len(dataset))
    finally:
        for each in written.values():
            each.close()
    with refused_by_machine(place):
        _pack(place / "outputs.npz", written)
    return {
        "samples": done,
        "batch": batch if opened.dynamic_batch else int(opened.inputs[0].dims[0]),
        "outputs": {name: {"dtype": each.dtype.name, "shape": [done, *each.dims]} for name, each in written.items()},
        "nonfinite": {name: each.nonfinite for name, each in written.items() if each.nonfinite},
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
