"""Ctrl-C, SIGTERM and kill -9 anywhere: the same command goes on, gives the same model, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

MLPACK = [sys.executable, "-c", "from mlpack.cli.app import main; main()"]
TINY = Path(__file__).parents[2] / "sample_models" / "tiny-mlp"
RECIPE = f"""
source: {{model: "{TINY}/model.py:model"}}
data: {{evaluation: "{TINY}/eval.npz"}}
name: tiny
limit: none
steps:
- prune: {{amount: 0.3, multiple: 2}}
- export
- simplify
- quantize: {{numerics: int8, method: static, operators: weighted}}
- compile: {{backend: onnxruntime}}
latency: {{profile_latency: {{launches: 2, seconds: 0.05, batches: [1], components: false}}}}
"""
STAGES = ("load", "prune", "export", "simplify", "quantize", "compile", "check_accuracy", "profile_latency", "golden")
POINTS = 3
TIMING = {"profile_latency"}
_WORK = re.compile(r"^\.(?P<key>[0-9a-f]{64})\.tmp-")

pytestmark = pytest.mark.slow


@dataclass
class Place:
    """A folder with the recipe, a cache and a store of its own."""

    folder: Path
    started: list[psutil.Process] = field(default_factory=list)

    def start(self, *flags: str) -> subprocess.Popen[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MLPACK_")}
        process = subprocess.Popen(
            [*MLPACK, "optimize", "recipe.yaml", "--store", "store", "--json", *flags],
            cwd=self.folder,
            # The timing lock is the machine's; one of its own keeps other timings out of these tests.
            env={
                **environment,
                "MLPACK_CACHE": str(self.cache),
                "TMPDIR": str(self.temporary),
                "XDG_CACHE_HOME": str(self.folder / "user-cache"),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.started.append(psutil.Process(process.pid))
        return process

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    @property
    def temporary(self) -> Path:
        return self.folder / "tmp"

    def working_on(self) -> dict[str, Path]:
        """Folders of stages that are being worked on by key."""
        found = (self.cache / "stages").glob("*/.*")
        return {match["key"]: path for path in found if (match := _WORK.match(path.name))}

    def finished(self) -> dict[str, int]:
        """When each finished stage was written, by key."""
        records = (self.cache / "stages").glob("*/*/stage.json")
        return {record.parent.name: record.stat().st_mtime_ns for record in records if record.parent.name[0] != "."}

    def leftovers(self) -> list[str]:
        everywhere = (*self.cache.rglob("*"), *self.temporary.rglob("*"), *(self.folder / "store").rglob("*"))
        return [str(path) for path in everywhere if ".tmp-" in path.name or self.temporary in path.parents]


@pytest.fixture
def place(tmp_path):
    return place_at(tmp_path)


def place_at(folder: Path) -> Place:
    (folder / "tmp").mkdir(parents=True)
    (folder / "recipe.yaml").write_text(RECIPE)
    return Place(folder)


def ended(process: subprocess.Popen[str], seconds: float = 240) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out, err


def kill_outright(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """kill -9 of the command alone; its children, which it could not end itself."""
    children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.kill()
    process.communicate()
    return children


def assert_gone(children: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(children, timeout=300)
    assert [child for child in alive if child.status() != psutil.STATUS_ZOMBIE] == []


@dataclass
class Reference:
    """An uninterrupted run: what it gave, which key each stage had, how long each took."""

    document: dict[str, object]
    stages: dict[str, str]
    seconds: dict[str, float]

    @property
    def model_digest(self) -> str:
        return self.document["model"]["digest"]


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    place = place_at(tmp_path_factory.mktemp("uninterrupted"))
    code, out, err = ended(place.start())
    assert code == 0, err
    assert place.leftovers() == []
    records = [json.loads(path.read_text()) for path in (place.cache / "stages").glob("*/*/stage.json")]
    assert {each["stage"] for each in records} == set(STAGES)
    return Reference(
        json.loads(out),
        {each["key"]: each["stage"] for each in records},
        {each["key"]: each["seconds"] for each in records},
    )


def wait_for_stage(place: Place, process: subprocess.Popen[str], reference: Reference, stage: str) -> str | None:
    """Poll until a stage of this name is being worked on; its key. None where the command ended first."""
    while process.poll() is None:
        for key in place.working_on():
            if reference.stages.get(key) == stage:
                return key
        time.sleep(0.005)
    return None


def assert_nothing_redone(before: dict[str, int], place: Place, reference: Reference) -> None:
    after = place.finished()
    redone = [key for key in before if after.get(key) != before[key] and reference.stages[key] != "profile_latency"]
    assert redone == []


@pytest.mark.parametrize(
    ("number", "code", "stage"), [(signal.SIGINT, 130, "export"), (signal.SIGTERM, 143, "profile_latency")]
)
def test_a_signal_ends_it_at_once_and_it_goes_on_later(place, reference, number, code, stage):
    process = place.start()
    assert wait_for_stage(place, process, reference, stage)
    time.sleep(0.7)
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.send_signal(number)
    asked = time.monotonic()
    returned, out, err = ended(process, 300)
    assert time.monotonic() - asked < 60
    assert returned == code, err
    assert json.loads(out)["error"]["exit_code"] == code
    assert "Traceback" not in err
    assert_gone(children)
    assert place.leftovers() == []
    before = place.finished()
    assert len(before) >= (1 if stage == "export" else 5)
    returned, out, err = ended(place.start())
    assert returned == 0, err
    assert_nothing_redone(before, place, reference)
    assert err.count("kept from an earlier run") >= len(before) - 1
    assert json.loads(out)["model"]["digest"] == reference.model_digest
    assert place.leftovers() == []


def killed_in(place: Place, reference: Reference, stage: str, share: float) -> None:
    """kill -9 once this share of the time that the stage takes has gone by."""
    process = place.start()
    key = wait_for_stage(place, process, reference, stage)
    assert key, ended(process)
    time.sleep(share * reference.seconds[key])
    assert_gone(kill_outright(process))


def killed_before_rename(place: Place, reference: Reference, stage: str) -> None:
    """kill -9 when all is written and the folder has not taken its place yet.

    The moment is short; what a crash may have left in that place has to be removed in it, which takes long when
    that is many files.
    """
    wanted = {key for key, name in reference.stages.items() if name == stage} - place.finished().keys()
    wanted |= {key for key, name in reference.stages.items() if name == stage == "profile_latency"}
    for key in wanted:
        in_the_way = place.cache / "stages" / key[:2] / key / "out"
        in_the_way.mkdir(parents=True, exist_ok=True)
        for number in range(20_000):
            (in_the_way / str(number)).touch()
    process = place.start()
    struck: list[str] = []
    while process.poll() is None and not struck:
        struck = [
            key for key, folder in place.working_on().items() if key in wanted and (folder / "stage.json").exists()
        ]
    children = kill_outright(process)
    assert struck, "the command went through without this stage"
    assert_gone(children)
    assert (place.working_on()[struck[0]] / "stage.json").exists(), "the rename was quicker than the kill"
    assert struck[0] not in place.finished() or stage == "profile_latency"


def unfinish(place: Place, reference: Reference, stage: str) -> None:
    """Where all of this stage is finished, take it out again: on a machine that became quicker a kill came too late."""
    keys = {key for key, name in reference.stages.items() if name == stage}
    if keys <= place.finished().keys():
        for key in keys:
            shutil.rmtree(place.cache / "stages" / key[:2] / key)


def test_kill_9_anywhere(place, reference):
    """In each stage at three seeded points, and between its last write and the rename; each run goes on from there."""
    order = random.Random(2)
    for stage in STAGES:
        for share in (*(order.random() for _ in range(POINTS)), None):
            if share is None:
                unfinish(place, reference, stage)
            before = place.finished()
            if share is None:
                killed_before_rename(place, reference, stage)
            elif stage in {reference.stages[key] for key in reference.stages.keys() - before.keys()} | TIMING:
                killed_in(place, reference, stage, share)
            assert_nothing_redone(before, place, reference)
    before = place.finished()
    code, out, err = ended(place.start())
    assert code == 0, err
    assert_nothing_redone(before, place, reference)
    assert json.loads(out)["model"]["digest"] == reference.model_digest
    assert place.finished().keys() == reference.stages.keys()
    assert place.leftovers() == []


def test_two_runs_at_once(place, reference):
    """One cache, one store: both end well, with two versions or one, and all that lies there is whole."""
    both = [place.start(), place.start()]
    results = [ended(process) for process in both]
    assert [code for code, _, _ in results] == [0, 0], [err for _, _, err in results]
    documents = [json.loads(out) for _, out, _ in results]
    assert {document["model"]["digest"] for document in documents} == {reference.model_digest}
    versions = {path.name for path in (place.folder / "store" / "tiny").iterdir() if path.name.isdigit()}
    assert versions == {str(document["version"]) for document in documents}
    if len(versions) == 1:
        assert any(document["unchanged"] for document in documents)
    for version in versions:
        checked = subprocess.run(
            [*MLPACK, "verify", f"tiny@{version}", "--store", "store"],
            cwd=place.folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert checked.returncode == 0, checked.stderr
    assert place.leftovers() == []


def test_an_unchanged_run_says_so(place, reference):
    first = json.loads(ended(place.start())[1])
    before = place.finished()
    code, out, err = ended(place.start())
    assert code == 0, err
    again = json.loads(out)
    assert again["unchanged"]
    assert (again["version"], again["digest"]) == (first["version"], first["digest"])
    assert_nothing_redone(before, place, reference)
