"""Whatever a user gets wrong: a clear line, a hint, the right exit code, and nothing lost or half-written."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

MLPACK = [sys.executable, "-c", "from mlpack.cli.app import main; main()"]

MODELS = '''
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, width=3, more=False):
        super().__init__()
        self.fc = nn.Linear(4, width)
        if more:
            self.more = nn.Linear(width, width)

    def forward(self, x):
        return self.fc(x)


class Wider(nn.Module):
    """256 kB of weights."""
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(256, 240), nn.Linear(240, 3)

    def forward(self, x):
        return self.two(torch.relu(self.one(x)))


class Log(Net):
    def forward(self, x):
        return torch.log(self.fc(x))


class LateLog(Net):
    """NaN on one row in a few hundred only."""
    def forward(self, x):
        return self.fc(x) + torch.log(3.0 - x[:, :1])


class Noisy(Net):
    def forward(self, x):
        return self.fc(x) + torch.rand(3)


class Counting(Net):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x):
        self.seen += 1
        return self.fc(x) + self.seen


class Branching(Net):
    def forward(self, x):
        return self.fc(x) if x.sum() > 0 else -self.fc(x)


class Embedding(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(10, 3)

    def forward(self, ids):
        return self.table(ids).mean(1)


class Fixed(Net):
    def forward(self, x):
        return self.fc(x.reshape(2, 4))


class Two(Net):
    def forward(self, x, y):
        return self.fc(x + y)


class Strange(Net):
    def forward(self, x):
        return {"answer": self.fc(x), "words": "no tensor"}


def made(kind, *given):
    torch.manual_seed(0)
    return kind(*given).eval()


def net(): return made(Net)
def wide(): return made(Net, 5)
def more(): return made(Net, 3, True)
def log(): return made(Log)
def late_log(): return made(LateLog)
def noisy(): return made(Noisy)
def counting(): return made(Counting)
def branching(): return made(Branching)
def embedding(): return made(Embedding)
def fixed(): return made(Fixed)
def two(): return made(Two)
def strange(): return made(Strange)
def wider(): return made(Wider)
def raises(): raise ValueError("the checkpoint is on another planet")
def number(): return 3
def lacks(): import nowhere_to_be_found
def wants(size): return made(Net)
'''

DATA = """
import numpy as np


def rows(labels=True):
    generator = np.random.default_rng(1)
    for _ in range(6):
        x = generator.standard_normal((10, 4)).astype("float32")
        yield {"x": x}, (np.arange(10) % 3 if labels else None)


def raises():
    yield from rows()
    raise OSError("the tape broke")


def nothing():
    return []


def no_iterable():
    return None


def uneven():
    yield {"x": np.zeros((10, 4), "float32")}, np.zeros(9, int)


def half():
    yield from rows()
    yield from rows(labels=False)


def shuffled():
    for inputs, labels in rows():
        yield {"x": np.random.standard_normal((10, 4)).astype("float32")}, labels
"""

METRICS = """
import numpy as np


def raises(outputs, labels):
    raise KeyError("logits")


def short(outputs, labels):
    return np.ones(3)


def words(outputs, labels):
    return "good"


def nan(outputs, labels):
    return np.full(len(labels), np.nan)
"""

RECIPE = """
source: {model: models.py:net}
data: {evaluation: good.npz}
steps: [export, simplify, {quantize: {numerics: int8}}, {compile: {backend: onnxruntime}}]
"""


class Evil:
    def __reduce__(self):
        return os.system, ("touch pickle-ran",)


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A folder with one file for each way to be wrong, and a cache that all cases share."""
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("bad-input")
    (folder / "models.py").write_text(MODELS)
    (folder / "broken.py").write_text("def net(:\n    pass\n")
    (folder / "rows.py").write_text(DATA)
    (folder / "metrics.py").write_text(METRICS)
    (folder / "a-folder").mkdir()
    _models(folder, torch, save_file)
    _data(folder)
    _recipes(folder)
    return folder


def _models(folder, torch, save_file):
    namespace: dict = {}
    exec(compile(MODELS, "models.py", "exec"), namespace)  # noqa: S102 - the text above
    net = namespace["net"]()
    state = net.state_dict()
    torch.save(state, folder / "weights.pt")
    save_file(state, folder / "weights.safetensors")
    for name in ("weights.pt", "weights.safetensors"):
        whole = (folder / name).read_bytes()
        (folder / f"cut-{name}").write_bytes(whole[: len(whole) * 2 // 3])
    program = torch.export.export(net, (torch.zeros(2, 4),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, folder / "net.pt2")
    whole = (folder / "net.pt2").read_bytes()
    (folder / "cut.pt2").write_bytes(whole[:-400])
    middle = len(whole) // 2
    (folder / "flipped.pt2").write_bytes(whole[: middle - 300] + bytes(600) + whole[middle + 300 :])
    (folder / "empty.pt2").write_bytes(b"")
    (folder / "text.pt2").write_text("not a model at all\n")
    (folder / "evil.pkl").write_bytes(pickle.dumps(Evil()))
    torch.save({"weights": Evil()}, folder / "evil.pt")
    torch.save({"epoch": 3}, folder / "no-tensors.pt")


def _data(folder):
    generator = np.random.default_rng(0)
    x = generator.standard_normal((60, 4)).astype("float32")
    labels = np.arange(60) % 3
    nan, positive = x.copy(), np.abs(x)
    nan[17, 2] = np.nan
    negative_once = np.zeros((400, 4), "float32") + generator.random((400, 4), dtype="float32")
    negative_once[::40, 0] = 4.0
    files = {
        "good": {"x": x, "labels": labels},
        "unlabelled": {"x": x},
        "overlap": {"x": x[5:9]},
        "wide": {"x": generator.standard_normal((60, 7)).astype("float32"), "labels": labels},
        "ranked": {"x": x[:, :, None], "labels": labels},
        "other-names": {"a": x, "b": x, "labels": labels},
        "two-lacks": {"x": x, "z": x, "labels": labels},
        "words": {"x": np.array(["a"] * 60), "labels": labels},
        "uneven": {"x": x, "labels": labels[:59]},
        "few": {"x": x[:12], "labels": labels[:12]},
        "none": {"x": x[:0], "labels": labels[:0]},
        "only-labels": {"labels": labels},
        "nan": {"x": nan, "labels": labels},
        "nan-labels": {"x": x, "labels": np.where(labels == 1, np.nan, labels)},
        "high-labels": {"x": x, "labels": labels + 40},
        "negative-labels": {"x": x, "labels": labels - 1},
        "whole-floats": {"x": x, "labels": labels.astype("float64")},
        "floats": {"x": x, "labels": generator.standard_normal(60)},
        "float-ids": {"ids": x, "labels": labels},
        "high-ids": {"ids": np.full((60, 4), 99) + np.arange(60)[:, None], "labels": labels},
        "equal": {"x": np.ones((60, 4), "float32"), "labels": labels},
        "odd": {"x": positive, "labels": labels},
        "late": {"x": negative_once, "labels": np.arange(400) % 3},
    }
    for name, arrays in files.items():
        np.savez(folder / f"{name}.npz", **arrays)
    np.savez(folder / "objects.npz", x=np.array([{}] * 60, dtype=object))
    np.savez(folder / "nothing.npz")
    np.save(folder / "single.npy", x)
    whole = (folder / "good.npz").read_bytes()
    (folder / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (folder / "text.npz").write_text("x,y\n1,2\n")
    (folder / "zero.npz").write_bytes(b"")


def _recipes(folder):
    (folder / "good.yaml").write_text(RECIPE)
    (folder / "not-yaml.yaml").write_text("steps: [export, {quantize\n")
    (folder / "binary.yaml").write_bytes(b"\xff\xfe\x00\x80")
    (folder / "list.yaml").write_text("- export\n")
    (folder / "empty.yaml").write_text("")
    (folder / "wrong-key.yaml").write_text(RECIPE + "limmit: 1%\n")
    (folder / "wrong-option.yaml").write_text(RECIPE.replace("numerics: int8", "numerics: int8, per_chanel: true"))
    (folder / "wrong-stage.yaml").write_text(RECIPE.replace("simplify", "simplfy"))
    (folder / "wrong-value.yaml").write_text(RECIPE.replace("int8", "int9"))
    (folder / "wrong-order.yaml").write_text(RECIPE.replace("[export, simplify", "[simplify"))
    (folder / "no-backend.yaml").write_text(RECIPE.replace(", {compile: {backend: onnxruntime}}", ""))
    (folder / "no-steps.yaml").write_text("source: {model: models.py:net}\nsteps: []\n")
    (folder / "no-source.yaml").write_text("steps: [export]\n")
    (folder / "text-source.yaml").write_text(RECIPE.replace("{model: models.py:net}", "models.py:net"))
    (folder / "text-data.yaml").write_text(RECIPE.replace("{evaluation: good.npz}", "good.npz"))
    (folder / "nested-key.yaml").write_text(RECIPE.replace("evaluation", "evaluatoin"))
    (folder / "bad-limit.yaml").write_text(RECIPE + "limit: 1\n")
    (folder / "bad-metric.yaml").write_text(RECIPE.replace("good.npz", "good.npz, metric: topp1"))


# situation: (words of the command after `optimize`, exit code, what the message has, what the hint has)
MODEL_CASES = {
    "no such model": ("nowhere.pt2", 2, "no file nowhere.pt2", ""),
    "a model misspelt": ("nett.pt2 --data good.npz", 2, "no file nett.pt2", "net.pt2"),
    "an empty model": ("empty.pt2", 2, "empty", "again"),
    "a folder": ("a-folder", 2, "folder", "give a .pt2"),
    "text": ("text.pt2", 2, "no model", "give a .pt2"),
    "Python without function": ("models.py --data good.npz", 2, "which function", "models.py:"),
    "data in place of the model": ("good.npz", 2, "arrays, not a model", "--data good.npz"),
    "a checkpoint cut off": ("cut-weights.pt --factory models.py:net", 2, "ends too early", "again"),
    "safetensors cut off": ("cut-weights.safetensors --factory models.py:net", 2, "ends too early", "again"),
    "a .pt2 cut off": ("cut.pt2 --data good.npz", 2, "ends too early", "again"),
    "a .pt2 with a hole": ("flipped.pt2 --data good.npz", 2, " .pt2", "export it again"),
    "a pickle that runs code": ("evil.pkl --data good.npz", 2, "system", ""),
    "a checkpoint that runs code": ("evil.pt --data good.npz", 2, "can run any code", "--allow-pickle"),
    "a checkpoint that runs code, with factory": (
        "evil.pt --factory models.py:net",
        2,
        "can run any code",
        "--allow-pickle",
    ),
    "a checkpoint without tensors": ("no-tensors.pt --factory models.py:net", 2, "no state dict", "state_dict()"),
    "weights without factory": ("weights.pt", 2, "2 tensors", "--factory"),
    "safetensors without factory": ("weights.safetensors", 2, "fc.weight", "--factory"),
    "weights that lack keys": ("weights.pt --factory models.py:more --data good.npz", 2, "more.weight", ""),
    "weights of other shapes": ("weights.pt --factory models.py:wide --data good.npz", 2, "[5, 4]", ""),
    "a factory that raises": ("models.py:raises --data good.npz", 2, "on another planet", "models.py"),
    "a factory that lacks a module": ("models.py:lacks --data good.npz", 2, "nowhere_to_be_found", ""),
    "a factory that wants arguments": ("models.py:wants --data good.npz", 2, "size", ""),
    "a factory with a syntax error": ("broken.py:net --data good.npz", 2, "SyntaxError", "broken.py"),
    "a factory not in its file": ("models.py:nett --data good.npz", 2, "'nett'", "models.py:net"),
    "a factory in no file": ("weights.pt --factory modelz.py:net", 2, "modelz.py", "models.py"),
    "a factory in no module": ("nowhere.models:net", 2, "nowhere.models", "path/file.py"),
    "a factory that gives a number": ("models.py:number --data good.npz", 2, "not an nn.Module", "return"),
    "a factory for a whole model": ("net.pt2 --factory models.py:net", 2, "needs no factory", "--factory"),
    "a model that is not deterministic": ("models.py:noisy --data good.npz", 2, "not deterministic", "random"),
    "a model that keeps state": ("models.py:counting --data good.npz", 4, "'seen'", "input and an output"),
    "a model for one batch size": ("models.py:fixed --data good.npz", 2, "batch", "--static-batch"),
    "a model that gives words": ("models.py:strange --data good.npz", 2, "words", ""),
    "NaN in all answers": ("models.py:log --data good.npz", 2, "NaN", "data"),
    "inputs not known": ("models.py:net", 2, "not known", "--input x=float32"),
}
DATA_CASES = {
    "no such data": ("models.py:net --data goood.npz", 2, "no data at goood.npz", "good.npz"),
    "empty data": ("models.py:net --data zero.npz", 2, "empty", "again"),
    "data cut off": ("models.py:net --data cut.npz", 2, "cut.npz", "again"),
    "data that is text": ("models.py:net --data text.npz", 2, "not a zip", "np.savez"),
    "data without arrays": ("models.py:net --data nothing.npz", 2, "no arrays", "np.savez"),
    "a single array": ("models.py:net --data single.npy", 2, "single array", "folder"),
    "a folder without arrays": ("models.py:net --data a-folder", 2, ".npy", "np.save"),
    "objects": ("models.py:net --data objects.npz", 2, "object", ""),
    "words in the data": ("models.py:net --data words.npz", 2, "'x'", "float32"),
    "labels alone": ("models.py:net --data only-labels.npz", 2, "no input array", "np.savez"),
    "too few samples": ("models.py:net --data few.npz", 2, "12 samples", "20"),
    "no samples": ("models.py:net --data none.npz", 2, "no samples", "20"),
    "one sample, repeated": ("models.py:net --data equal.npz", 2, "repeats", "different samples"),
    "sample counts that differ": ("models.py:net --data uneven.npz", 2, "59", "equally long"),
    "other names": ("models.py:net --data other-names.npz", 2, "forward() takes x", "rename"),
    "other names, two inputs": ("models.py:two --data two-lacks.npz", 2, "takes x, y", "rename 'z'"),
    "one input lacks": ("models.py:two --data good.npz", 2, "y", "'y'"),
    "other names than an exported program": ("net.pt2 --data other-names.npz", 2, "takes x", "'x'"),
    "other shape": ("models.py:net --data wide.npz", 2, "float32", ""),
    "other shape than an exported program": ("net.pt2 --data wide.npz", 2, "[batch, 7]", "4"),
    "other rank": ("net.pt2 --data ranked.npz", 2, "[batch, 4, 1]", "reshape"),
    "floats for whole numbers": (
        "models.py:embedding --data float-ids.npz --input ids=int64:batch,4", 2, "int64", "astype",
    ),
    "numbers beyond the table": (
        "models.py:embedding --data high-ids.npz", 2, "the model's largest embedding has 10 entries", "tokenizer"
    ),
    "NaN in the data": ("models.py:net --data nan.npz", 2, "NaN, first in row 17", "isfinite"),
    "NaN in the labels": ("models.py:net --data nan-labels.npz", 2, "'labels'", "isfinite"),
    "whole floats as labels": ("models.py:net --data whole-floats.npz", 2, "class numbers", "--metric top1"),
    "a data function that raises": ("models.py:net --data rows.py:raises", 2, "the tape broke", "rows.py"),
    "a data function that gives nothing": ("models.py:net --data rows.py:nothing", 2, "no batches", "yield"),
    "a data function that gives None": ("models.py:net --data rows.py:no_iterable", 2, "NoneType", "rows.py"),
    "a data function not in its file": ("models.py:net --data rows.py:row", 2, "'row'", "rows.py:rows"),
    "a data function with uneven batches": ("models.py:net --data rows.py:uneven", 2, "9", "yield"),
    "a data function with labels for some": ("models.py:net --data rows.py:half", 2, "some batches", "all batches"),
    "a data function that shuffles": ("models.py:net --data rows.py:shuffled", 2, "other rows", "seed"),
    "calibration rows among the others": (
        "models.py:net --data good.npz --calibration overlap.npz", 2, "4 of 4 rows", "--calibration",
    ),
    "random calibration beside data": (
        "models.py:net --data good.npz --calibration random:8", 2, "random", "--calibration",
    ),
    "random without a number": ("net.pt2 --calibration random:many", 2, "random:many", "random:64"),
    "calibration alone": ("net.pt2 --int8 --calibration good.npz", 2, "--calibration without --data", "--data"),
}  # fmt: skip
FLAG_CASES = {
    "an unknown target": ("net.pt2 --data good.npz --target a1000", 2, "a1000", "a100"),
    "an unknown metric": ("net.pt2 --data good.npz --metric topp1", 2, "topp1", "top1"),
    "a metric that needs labels": ("net.pt2 --data unlabelled.npz --metric top1", 2, "needs labels", "agreement"),
    "a metric in no file": ("net.pt2 --data good.npz --metric nowhere.py:score", 2, "nowhere.py", "--metric"),
    "a metric not in its file": ("net.pt2 --data good.npz --metric metrics.py:shrt", 2, "shrt", "short"),
    "an unknown backend": ("net.pt2 --data good.npz --backend onnxruntme", 2, "onnxruntme", "onnxruntime"),
    "a limit without unit": ("net.pt2 --data good.npz --max-drop 1", 2, "unit", "1%"),
    "a limit that is no number": ("net.pt2 --data good.npz --max-drop tiny", 2, "'tiny'", "0.8pt"),
    "a limit and none": ("net.pt2 --data good.npz --max-drop 1% --no-limit", 2, "exclude", ""),
    "two numerics": ("net.pt2 --data good.npz --int8 --fp16", 2, "--fp16, --int8", "one"),
    "int8 without data": ("net.pt2 --int8", 2, "int8 needs data", "random:64"),
    "fp8 on an a100": ("net.pt2 --data good.npz --fp8 --target a100", 2, "no fp8", "mlpack targets"),
    "fp8 on this machine": ("net.pt2 --data good.npz --fp8", 2, "fp8", "mlpack targets"),
    "int4 on a v100": ("net.pt2 --data good.npz --int4 --target v100", 2, "has no int4", ""),
    "a setting of no stage": ("net.pt2 --data good.npz --set quantise.samples=4", 2, "quantise", "quantize"),
    "a setting of no option": ("net.pt2 --data good.npz --set quantize.sample=4", 2, "sample", "samples"),
    "a setting without value": ("net.pt2 --data good.npz --set quantize.samples", 2, "stage.option=value", "--set"),
    "a setting out of bounds": ("net.pt2 --data good.npz --set quantize.samples=0", 2, "samples", "0"),
    "a setting that is no YAML": ("net.pt2 --data good.npz --set quantize.samples=[", 2, "quantize.samples", "--set"),
    "no model": ("", 2, "which model", "mlpack optimize"),
    "an unknown flag": ("net.pt2 --data good.npz --int9", 2, "--int9", "--int8"),
    "no threads": ("net.pt2 --data good.npz --threads 0", 2, "threads", "--help"),
    "an input spelt wrong": ("models.py:net --input x:float32", 2, "x:float32", "--input"),
    "an input of no dtype": ("models.py:net --input x=float31:batch,4", 2, "float31", "float32"),
    "an input for an exported program": ("net.pt2 --data good.npz --input x=float32:batch,4", 2, "--input", "leave"),
    "an input that does not fit": ("models.py:net --input x=float32:batch,9", 2, "forward(", "--input"),
    "a name with a slash": ("net.pt2 --data good.npz --name ../up", 2, "../up", ""),
    "a name that is reserved": ("net.pt2 --data good.npz --name latest@1", 2, "latest@1", ""),
    "no recipe": ("nowhere.yaml", 2, "nowhere.yaml", "mlpack recipes"),
    "a recipe that is no YAML": ("not-yaml.yaml", 2, "not YAML", "not-yaml.yaml"),
    "a recipe of bytes": ("binary.yaml", 2, "not YAML", "binary.yaml"),
    "a recipe that is a list": ("list.yaml", 2, "no recipe", "steps"),
    "an empty recipe": ("empty.yaml", 2, "no recipe", "steps"),
    "a recipe without steps": ("no-steps.yaml", 2, "no step", "compile"),
    "a recipe without source": ("no-source.yaml", 2, "source", ""),
    "a recipe with a text as source": ("text-source.yaml", 2, "source", ""),
    "a recipe with a text as data": ("text-data.yaml", 2, "data", ""),
    "an unknown recipe key": ("wrong-key.yaml", 2, "limmit", "limit"),
    "an unknown key inside": ("nested-key.yaml", 2, "evaluatoin", "evaluation"),
    "an unknown option in a recipe": ("wrong-option.yaml", 2, "per_chanel", "per_channel"),
    "an unknown stage in a recipe": ("wrong-stage.yaml", 2, "simplfy", "simplify"),
    "a value that is not allowed": ("wrong-value.yaml", 2, "numerics", "int9"),
    "stages that do not follow": ("wrong-order.yaml", 2, "'simplify' takes onnx", "put a step"),
    "stages that choose no backend": ("no-backend.yaml", 2, "no step says which backend", "compile"),
    "a recipe with a bare limit": ("bad-limit.yaml", 2, "limit", ""),
    "a recipe with an unknown metric": ("bad-metric.yaml", 2, "topp1", "top1"),
    "a recipe and a numerics flag": ("good.yaml --int8", 2, "recipe", "--set"),
}
# These fail only once the model has been exported, or when the candidates are scored.
LATE_CASES = {
    "data-dependent control flow": ("models.py:branching --data good.npz", 2, "cannot be exported", "torch.where"),
    "labels out of range": ("net.pt2 --data high-labels.npz --target a100", 2, "label", ""),
    "negative labels": ("net.pt2 --data negative-labels.npz --target a100", 2, "label", ""),
    "float labels with top1": ("net.pt2 --data floats.npz --metric top1 --target a100", 2, "label", ""),
    "an unknown output": ("net.pt2 --data good.npz --output answers --target a100", 2, "answers", ""),
    "NaN in some answers": ("models.py:late_log --data late.npz --target a100", 2, "NaN", ""),
    "a metric that raises": ("net.pt2 --data good.npz --metric metrics.py:raises --target a100", 2, "logits", "fix"),
    "a metric of too few scores": ("net.pt2 --data good.npz --metric metrics.py:short --target a100", 2, "[3]", "per"),
    "a metric that gives words": ("net.pt2 --data good.npz --metric metrics.py:words --target a100", 2, "words", ""),
    "a metric that gives NaN": ("net.pt2 --data good.npz --metric metrics.py:nan --target a100", 2, "nan", ""),
}
CASES = {**MODEL_CASES, **DATA_CASES, **FLAG_CASES}


def mlpack(folder, *words, **variables):
    with started(folder, *words, **variables) as process:
        out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def started(folder, *words, **variables):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLPACK_")}
    environment["XDG_CACHE_HOME"] = str(folder / "user-cache")
    return subprocess.Popen(
        [*MLPACK, *words],
        cwd=folder,
        env={**environment, "MLPACK_CACHE": str(folder / "cache"), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def leftovers(cache: Path) -> list[Path]:
    return [path for path in cache.rglob("*") if ".tmp-" in path.name or path.name.startswith("publishing-")]


def check_refusal(done, code, message, hint):
    """The lines for people, the one document for programs, no traceback, no half-made files."""
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == code, done.stderr
    told = json.loads(done.stdout)["error"]
    assert told["exit_code"] == code
    assert message in told["message"], told
    assert hint in told["hint"], told
    assert told["hint"], told
    assert "\n" not in told["hint"]
    assert re.search(r"^error: .+", done.stderr, re.MULTILINE)
    assert re.search(r"^hint: .+", done.stderr, re.MULTILINE)


@pytest.fixture
def refused(made, monkeypatch, capsys):
    """The command line in this process, whose children are then forked from one process for all cases."""
    from mlpack.cli.app import run

    for name in [name for name in os.environ if name.startswith("MLPACK_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(made / "user-cache"))
    monkeypatch.setenv("MLPACK_CACHE", str(made / "cache"))
    monkeypatch.chdir(made)

    def check(line, code, message, hint):
        words = ["optimize", *line.split(), "--store", "store", "--json"]
        capsys.readouterr()
        returned = run(words)
        check_refusal(subprocess.CompletedProcess(words, returned, *capsys.readouterr()), code, message, hint)
        assert not (made / "store").exists() or not list((made / "store").rglob("*"))
        assert leftovers(made / "cache") == []
        assert not (made / "pickle-ran").exists(), "the pickle's code ran"

    return check


@pytest.mark.parametrize(("line", "code", "message", "hint"), list(CASES.values()), ids=list(CASES))
def test_bad_input_is_refused(refused, line, code, message, hint):
    refused(line, code, message, hint)


@pytest.mark.slow
@pytest.mark.parametrize(("line", "code", "message", "hint"), list(LATE_CASES.values()), ids=list(LATE_CASES))
def test_bad_input_that_shows_late_is_refused(refused, line, code, message, hint):
    refused(line, code, message, hint)


def test_an_unknown_command_is_refused(made):
    check_refusal(mlpack(made, "optimise", "net.pt2", "--json"), 2, "optimise", "optimize")


def test_a_store_that_is_a_file_is_refused_before_any_work(made):
    done = mlpack(made, "optimize", "net.pt2", "--data", "good.npz", "--store", "good.npz", "--json")
    check_refusal(done, 2, "no folder", "--store")
    assert "load" not in done.stderr


def test_a_store_that_cannot_be_written_is_refused_before_any_work(made):
    """/proc takes no folders, not even from root."""
    if not Path("/proc/self").is_dir():
        pytest.skip("no /proc on this system")
    done = mlpack(made, "optimize", "net.pt2", "--data", "good.npz", "--store", "/proc/mlpack-store", "--json")
    check_refusal(done, 3, "/proc/mlpack-store", "MLPACK_STORE")
    assert "load" not in done.stderr


def test_a_cache_that_cannot_be_written_is_refused(made):
    if not Path("/proc/self").is_dir():
        pytest.skip("no /proc on this system")
    done = mlpack(made, "optimize", "net.pt2", "--data", "good.npz", "--json", MLPACK_CACHE="/proc/mlpack-cache")
    check_refusal(done, 3, "/proc/mlpack-cache", "MLPACK_CACHE")


@pytest.fixture
def small_disk(tmp_path):
    """`mount(kilobytes)` gives a folder on a file system of that size; skipped where nothing can be mounted."""
    mounted = []

    def mount(kilobytes: int, *flags: str) -> Path:
        folder = tmp_path / f"disk-{len(mounted)}"
        folder.mkdir()
        words = ["mount", "-t", "tmpfs", "-o", ",".join([f"size={kilobytes}k", *flags]), "tmpfs", str(folder)]
        if shutil.which("mount") is None:
            pytest.skip("this system has no mount command")
        done = subprocess.run(words, check=False, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"only root may mount a small file system: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_read_only_store_is_refused_before_any_work(made, small_disk):
    disk = small_disk(64, "ro")
    done = mlpack(made, "optimize", "net.pt2", "--data", "good.npz", "--store", str(disk / "store"), "--json")
    check_refusal(done, 3, "read-only", "MLPACK_STORE")
    assert "load" not in done.stderr


RECIPE_ON_A_DISK = """
source: {model: models.py:wider}
data: {evaluation: wider.npz}
limit: none
steps:
- export
- simplify
- quantize: {numerics: int8, method: static, operators: weighted}
- compile: {backend: onnxruntime}
target: a100
"""


@pytest.mark.parametrize("kilobytes", [8, 64, 15_000])
def test_a_full_disk_under_the_cache(made, small_disk, kilobytes):
    disk = small_disk(kilobytes)
    wider(made)
    done = mlpack(made, "optimize", "disk.yaml", "--store", "full-store", "--json", MLPACK_CACHE=str(disk))
    check_refusal(done, 3, "disk is", "mlpack gc")
    assert leftovers(disk) == []
    assert not (made / "full-store").exists()


@pytest.mark.slow
@pytest.mark.parametrize("finished", [0, 1, 3, 6])
def test_a_disk_that_fills_up_meanwhile(made, small_disk, finished):
    """Others fill the disk while the stage after so many finished ones is at work."""
    disk = small_disk(40_000)
    wider(made)
    words = ["optimize", "disk.yaml", "--store", "full-store", "--json"]
    with started(made, *words, MLPACK_CACHE=str(disk)) as process:
        while process.poll() is None and not (
            len(list(disk.glob("stages/*/[!.]*/stage.json"))) == finished and list(disk.glob("stages/*/.*.tmp-*"))
        ):
            time.sleep(0.01)
        with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))
        out, err = process.communicate(timeout=300)
    check_refusal(subprocess.CompletedProcess(words, process.returncode, out, err), 3, "disk is", "mlpack gc")
    assert leftovers(disk) == []
    assert not (made / "full-store").exists()


@pytest.mark.slow
def test_a_full_disk_under_the_store(made, small_disk):
    disk = small_disk(60)
    wider(made)
    done = mlpack(made, "optimize", "disk.yaml", "--store", str(disk / "store"), "--json")
    check_refusal(done, 3, "disk is", "MLPACK_STORE")
    assert [path for path in (disk / "store").rglob("*") if path.is_file()] == []
    good = mlpack(made, "optimize", "disk.yaml", "--store", "roomy-store", "--json")
    assert good.returncode == 0, good.stderr
    assert good.stderr.count("kept from an earlier run") >= 5
    assert leftovers(made / "cache") == []
    shutil.rmtree(made / "roomy-store")


def wider(folder):
    generator = np.random.default_rng(0)
    x = generator.standard_normal((60, 256)).astype("float32")
    np.savez(folder / "wider.npz", x=x, labels=np.arange(60) % 3)
    (folder / "disk.yaml").write_text(RECIPE_ON_A_DISK)
