"""What a stage is run with here: a Job without an engine, rows of an .npz, and each tiny model's inputs."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mlpack.backends import BACKENDS
from mlpack.core.arrays import save_arrays
from mlpack.core.backend_options import BackendOptions
from mlpack.core.recipe import SourceSpec
from mlpack.core.targets import load_target
from mlpack.datasets import open_data
from mlpack.stages.export import Export
from mlpack.stages.load import Load
from mlpack.stages.simplify import Simplify

ZOO = Path(__file__).with_name("zoo.py")
INPUTS = {
    "conv_net": "image=float32:batch,3,8,8",
    "dead_channels": "image=float32:batch,3,8,8",
    "residual": "image=float32:batch,3,8,8",
    "mlp": "x=float32:batch,8",
    "wide": "x=float32:batch,8",
    "twice": "x=float32:batch,8",
    "transformer": "tokens=int64:batch,12",
    "headed": "tokens=int64:batch,12",
    "tagger": "frames=float32:batch,5,6",
    "siamese": "left=float32:batch,8 right=float32:batch,8",
    "branching": "x=float32:batch,4",
    "elementwise": "x=float32:batch,4",
}
VNNI = load_target("zen5")
AVX2 = load_target("avx2")
ARM = load_target("graviton3")
A100 = load_target("a100")


@dataclass
class OneJob:
    """The Job of one run of one stage."""

    out: Path
    parts: dict = field(default_factory=dict)
    target: object = VNNI
    threads: int = 1
    seed: int = 0
    baseline: object = None
    rivals: dict = field(default_factory=dict)
    said: list = field(default_factory=list)

    @property
    def unfinished(self):
        return self.out.with_name(f"{self.out.name}-unfinished")

    def say(self, text, done=None, total=None):
        self.said.append((text, done, total))

    def launch(self, reference, arguments):
        raise AssertionError(reference, arguments)

    def dataset(self, part):
        return self.parts.get(part)

    def backend(self, name):
        return BACKENDS[name]


class Bench:
    """Runs stages one after the other in a folder of its own."""

    def __init__(self, folder):
        self.folder = Path(folder)

    def job(self, **told):
        return OneJob(Path(tempfile.mkdtemp(prefix="out", dir=self.folder)), **told)

    def data(self, **arrays):
        path = self.job().out / "data.npz"
        save_arrays(path, arrays)
        return open_data(str(path))

    def load(self, model, data=None, **spec):
        parts = {} if data is None else {"choosing": data}
        stage = Load.of(SourceSpec(model=str(model), **spec), () if data is None else data.inputs)
        return stage.run(None, self.job(parts=parts)).model

    def factory(self, name, **spec):
        return self.load(f"{ZOO}:{name}", inputs=tuple(INPUTS[name].split(" ")), **spec)

    def exported(self, name):
        return Export().run(self.factory(name), self.job()).model

    def ready(self, name):
        """Exported and simplified: what a recipe hands to quantize."""
        return Simplify().run(self.exported(name), self.job()).model


def rows_for(name, count, seed=0):
    """Rows that the tiny model of this name takes."""
    random = np.random.default_rng(seed)
    arrays = {}
    for each in INPUTS[name].split(" "):
        key, _, described = each.partition("=")
        dtype, _, dims = described.partition(":")
        shape = (count, *(int(dim) for dim in dims.split(",")[1:]))
        arrays[key] = random.integers(0, 50, shape) if dtype == "int64" else random.standard_normal(shape).astype(dtype)
    return arrays


def of_batch(model, size):
    """The same model as one that takes this batch alone."""
    fixed = {
        name: tuple(spec.model_copy(update={"dims": (size, *spec.dims[1:])}) for spec in getattr(model, name))
        for name in ("inputs", "outputs")
    }
    return model.model_copy(update=fixed)


def answers(model, inputs, backend="onnxruntime", **options):
    """What a backend answers."""
    told = BackendOptions(**{"threads": 1, **options})
    with BACKENDS[backend].open(model, VNNI, told) as runner:
        return runner(inputs)


def relative(reference, other):
    return float(np.linalg.norm(reference - other) / np.linalg.norm(reference))
