"""`mlpack.package` and `mlpack package`: complete or not there at all."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_artifacts import make

from mlpack.api.package import package
from mlpack.errors import MachineError, Tampered, UsageError
from mlpack.store.verify import verify


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "store")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLPACK_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("MLPACK_CACHE", str(tmp_path / "store" / "cache"))
    return tmp_path


@pytest.mark.parametrize("runtime", ["triton", "fastapi"])
def test_default_folder_record_and_verify(here, runtime):
    stored = make(here / "store")
    packaged = package(runtime=runtime)
    assert packaged.path == here / f"tiny-mlp-1-{runtime}"
    assert left(here) == [f"tiny-mlp-1-{runtime}"]
    record = json.loads((packaged.path / "mlpack-package.json").read_text())
    files = record.pop("files")
    digest = stored.artifact.digest
    assert record == {
        "schema": 1, "runtime": runtime, "name": "tiny-mlp", "version": 1, "artifact_digest": digest,
    }  # fmt: skip
    there = {path.relative_to(packaged.path).as_posix() for path in packaged.path.rglob("*") if path.is_file()}
    assert there == {*files, "mlpack-package.json"}
    for relative, digest in files.items():
        assert hashlib.sha256((packaged.path / relative).read_bytes()).hexdigest() == digest
    assert verify(packaged.path).files == len(files)


def test_the_same_artifact_makes_the_same_package(here):
    make(here / "store")
    assert package(runtime="fastapi", out=here / "a").files == package(runtime="fastapi", out=str(here / "b")).files


def test_a_folder_that_is_there_is_left_alone(here):
    make(here / "store")
    (here / "mine").mkdir()
    with pytest.raises(UsageError, match="is there already") as caught:
        package(runtime="triton", out=here / "mine")
    assert f"--out {here / 'mine'}-2" in caught.value.hint
    assert list((here / "mine").iterdir()) == []


@pytest.mark.parametrize("change", ["altered", "missing", "unlisted"])
@pytest.mark.parametrize("relative", ["model/model.onnx.data", "golden/outputs.npz"])
def test_a_tampered_artifact_leaves_nothing(here, relative, change):
    stored = make(here / "store")
    path = stored.path / relative
    if change == "altered":
        path.write_bytes(path.read_bytes()[:-1] + b"!")
    elif change == "missing":
        path.unlink()
    else:
        record = json.loads((stored.path / "artifact.json").read_text())
        record["files"][relative] = "0" * 64
        (stored.path / "artifact.json").write_text(json.dumps(record))
    with pytest.raises(Tampered) as caught:
        package("tiny-mlp", runtime="triton")
    assert str(path) in caught.value.message
    assert caught.value.exit_code == 5
    assert left(here) == []


def test_candidates_need_force(here):
    make(here / "store", status="candidate", accuracy__verdict="inconclusive")
    with pytest.raises(UsageError, match="is a candidate: its accuracy is inconclusive") as caught:
        package("tiny-mlp", runtime="fastapi")
    assert caught.value.hint == "mlpack package tiny-mlp@1 --runtime fastapi --force"
    assert package("tiny-mlp", runtime="fastapi", force=True).path.is_dir()


def test_unknown_runtime_and_silly_numbers(here):
    make(here / "store")
    with pytest.raises(UsageError) as caught:
        package(runtime="tritn")
    assert caught.value.hint == "did you mean 'triton'?"
    for options in (
        {"max_batch": 0},
        {"queue_delay_ms": -1.0},
        {"queue_delay_ms": float("nan")},
        {"instances": 0},
    ):
        with pytest.raises(UsageError):
            package(runtime="triton", **options)
    assert left(here) == []


def test_a_path_through_a_file_is_refused(here):
    make(here / "store")
    (here / "file").write_text("mine")
    for out in (here / "file" / "package", here / "file" / "deeper" / "package"):
        with pytest.raises(UsageError, match="a part of its path is a file"):
            package(runtime="triton", out=out)


@pytest.mark.skipif(not Path("/sys/kernel").exists(), reason="needs a place that not even root can write")
def test_a_place_that_cannot_be_written_is_exit_3(here):
    make(here / "store")
    with pytest.raises(MachineError) as caught:
        package(runtime="triton", out=Path("/sys/mlpack-package"))
    assert caught.value.exit_code == 3


def mlpack(*words: str, cwd: Path) -> subprocess.CompletedProcess:
    command = Path(sys.executable).parent / "mlpack"
    return subprocess.run([command, *words], cwd=cwd, capture_output=True, text=True, check=False, timeout=300)


def test_the_command(here):
    make(here / "store")
    done = mlpack("package", "--runtime", "triton", "--max-batch", "4", "--json", cwd=here)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["path"] == str(here / "tiny-mlp-1-triton")
    assert "max_batch_size: 4" in (here / "tiny-mlp-1-triton/model_repository/tiny-mlp/config.pbtxt").read_text()
    again = mlpack("package", "tiny-mlp@1", "--runtime", "triton", cwd=here)
    assert again.returncode == 2
    assert again.stderr.startswith("error: ")
    assert "hint: " in again.stderr
    served = mlpack("package", "--runtime", "fastapi", "--timeout-ms", "50", "--cache", "memory", cwd=here)
    assert served.returncode == 0, served.stderr
    described = json.loads((here / "tiny-mlp-1-fastapi" / "model.json").read_text())
    assert described["limits"]["timeout_ms"] == 50
    assert described["cache"] == {"store": "memory", "size_bytes": 64_000_000}
    missing = mlpack("package", cwd=here)
    assert missing.returncode == 2
    assert "--runtime triton or --runtime fastapi" in missing.stderr


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("access", "token"),
        ("rate_limit", 5.0),
        ("fallback", "tiny-text"),
        ("traces", "otlp"),
    ],
)
def test_triton_refuses_what_it_has_no_use_for(here, flag, value):
    make(here / "store")
    make(here / "store", "text")
    with pytest.raises(UsageError, match=f"--{flag.replace('_', '-')} is an option of the fastapi server"):
        package("tiny-mlp", runtime="triton", **{flag: value})
    assert left(here) == []


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [
        ("timeout_ms", 0, "--timeout-ms 0: Input should be greater than 0"),
        ("rate_limit", -1, "--rate-limit -1: Input should be greater than 0"),
        ("access", "friends", "--access friends: Input should be 'open' or 'token'"),
        ("cache_mb", 0, "--cache-mb 0: Input should be greater than or equal to 1"),
    ],
)
def test_options_that_make_no_sense_are_refused(here, flag, value, said):
    make(here / "store")
    with pytest.raises(UsageError) as caught:
        package(runtime="fastapi", **{flag: value})
    assert caught.value.message == said
    assert caught.value.hint.startswith(f"--{flag.replace('_', '-')} is the ")
