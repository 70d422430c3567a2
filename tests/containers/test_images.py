"""Images of packages, built and run for real: read-only, without capabilities, not as root, ended without a loss."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
from pathlib import Path

import pytest
from serving import Running, alter_outputs, run_client
from tiny_artifacts import make, samples

import mlpack
from mlpack.api import check_container
from mlpack.containers import ENGINES, engine_here
from mlpack.errors import MissingLibrary, StageFailed
from mlpack.runtimes import RUNTIMES
from mlpack.store.verify import verify

SLOW = 12
A100 = {"target": {"name": "a100", "kind": "cuda"}, "model__numerics": "int8", "accuracy__simulated": True,
        "model__backend_options": {"threads": 2, "graph_optimizations": "off"}, "latency": []}  # fmt: skip


@pytest.fixture
def here(place, monkeypatch, engines):
    for name, value in engines.items():
        monkeypatch.setenv(name, value)
    return place


def podman(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run(["podman", *words], capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.slow
def test_an_image_serves_hardened_and_loses_nothing_at_its_end(here, cli):
    make(here / "artifacts", "slow")
    done = cli("package", "tiny-slow", "--runtime", "fastapi", "--build", "--json")
    assert done.code == 0, done.err
    image, folder = done.document["image"], Path(done.document["path"])
    assert (image["engine"], image["reference"]) == ("podman", "tiny-slow:1")
    assert json.loads((folder / "mlpack-package.json").read_text())["image"] == image
    verify(folder)
    (shown,) = json.loads(podman("image", "inspect", "tiny-slow:1").stdout)
    assert f"sha256:{shown['Id']}" == image["digest"]
    assert shown["Labels"]["io.mlpack.artifact.digest"] == done.document["artifact_digest"]
    assert shown["Healthcheck"], "the health check is kept"
    record = json.loads((folder / "mlpack-package.json").read_text())
    with check_container.serve(folder, record, RUNTIMES["fastapi"], here / "log") as running:
        server, name = (
            Running(None, folder, running.urls["http"]),
            podman("ps", "--format", "{{.Names}}").stdout.strip(),
        )
        assert run_client(folder, server.url).returncode == 0
        inside = [
            podman("exec", name, *words)
            for words in (("id", "-u"), ("touch", "/app/x"), ("python", "-c", "import torch"))
        ]
        assert inside[0].stdout.strip() == "10001"
        assert inside[1].returncode != 0, "the root is read-only"
        assert inside[2].returncode != 0, "no torch"
        array = samples("slow")["features"][:1]
        body = {"inputs": [{"name": "features", "datatype": "FP32", "shape": [1, 700], "data": array.ravel().tolist()}]}
        answered: list[int] = []

        def ask() -> None:
            with contextlib.suppress(OSError):
                answered.append(server.ask("/v2/models/tiny-slow/infer", body)[0])

        asking = [threading.Thread(target=ask) for _ in range(SLOW)]
        for each in asking:
            each.start()
        # All of them are in: the queue and the model hold what has not been answered.
        time.sleep(1)
        running.process.terminate()
        for each in asking:
            each.join()
        # Those that came before the signal are answered; a refusal would say 503.
        assert answered.count(200) == len(answered) == SLOW
        assert running.process.wait(60) in {0, 143}
    assert podman("ps", "--all", "--format", "{{.Names}}").stdout == "", "nothing is left"


@pytest.mark.slow
def test_check_proves_a_package_in_its_image(here, cli):
    make(here / "artifacts")
    folder = mlpack.package("tiny-mlp", runtime="fastapi").path
    done = cli("check", str(folder), "--container", "--json")
    assert done.code == 0, done.err
    assert done.document["notes"] == ["in a container of podman: read-only, without capabilities"]
    alter_outputs(folder, "score", 4, 0.01)
    different = cli("check", str(folder), "--container", "--json")
    assert different.code == 5
    assert "score" in different.document["error"]["message"]
    assert podman("ps", "--all", "--format", "{{.Names}}").stdout == ""
    assert cli("check", str(folder), "--container", "--python", "python").code == 2


@pytest.mark.slow
def test_buildah_builds_the_same_and_an_image_that_cannot_be_built_says_why(here):
    make(here / "artifacts")
    packaged = mlpack.package("tiny-mlp", runtime="fastapi")
    image = ENGINES["buildah"].build(packaged.path, "tiny-mlp:1")
    assert image.digest.startswith("sha256:")
    (packaged.path / "Dockerfile").write_text("FROM docker.io/library/python:3.11-slim\nRUN false\n")
    with pytest.raises(StageFailed, match="podman cannot build") as caught:
        ENGINES["podman"].build(packaged.path, "broken:1")
    assert "\n" not in caught.value.message
    assert caught.value.hint.startswith("podman build")


def recorded(place, monkeypatch):
    """A docker that writes down what it is asked, and runs nothing."""
    answers = 'case "$1" in image) echo sha256:abc;; run) echo "$@" >> asked; exit 1;; esac'
    (place / "docker").write_text(f"#!/bin/sh\ncd {place}\n{answers}\n")
    (place / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:/bin:/usr/bin")


def test_a_container_is_started_as_compose_starts_it(cli, place, monkeypatch):
    make(place / "artifacts", model__backend="openvino", accuracy__backend="openvino")
    recorded(place, monkeypatch)
    folder = mlpack.package("tiny-mlp", runtime="triton").path
    done = cli("check", str(folder), "--container", "--json")
    assert (done.code, done.document["error"]["kind"]) == (4, "StageFailed")
    asked = (place / "asked").read_text()
    assert "--read-only --tmpfs /tmp --cap-drop ALL" in asked
    assert "--shm-size 1gb" in asked
    assert ":8000 " in asked
    assert asked.strip().endswith(" abc"), "by its digest"


def test_what_cannot_be_checked_in_a_container_is_refused_before_anything_is_built(cli, place, monkeypatch):
    make(place / "artifacts")
    make(place / "artifacts", "text", **A100)
    recorded(place, monkeypatch)
    monkeypatch.delenv("AUTH_TOKEN", raising=False)
    token = mlpack.package("tiny-mlp", runtime="fastapi", access="token").path
    refused = cli("check", str(token), "--container", "--json")
    assert (refused.code, "AUTH_TOKEN" in refused.document["error"]["message"]) == (2, True)
    monkeypatch.setenv("AUTH_TOKEN", "a-token-that-is-long-enough")
    assert cli("check", str(token), "--container").code == 4
    assert "--env AUTH_TOKEN" in (place / "asked").read_text()
    (place / "asked").unlink()
    for name, runtime, code in (("tiny-mlp", "torchserve", 2), ("tiny-text", "triton", 3)):
        folder = mlpack.package(name, runtime=runtime).path
        assert cli("check", str(folder), "--container").code == code
    assert not (place / "asked").exists()


def test_without_an_engine_nothing_is_written(cli, place, monkeypatch):
    make(place / "artifacts")
    monkeypatch.setenv("PATH", str(place))
    with pytest.raises(MissingLibrary, match="docker is not installed; podman is not installed"):
        engine_here()
    with pytest.raises(MissingLibrary, match="buildah runs nothing"):
        engine_here("run")
    done = cli("package", "tiny-mlp", "--runtime", "fastapi", "--build")
    assert done.code == 3
    assert "hint: apt-get install podman" in done.err
    assert not (place / "tiny-mlp-1-fastapi").exists()


def test_an_engine_that_does_not_answer_is_passed_over(place, monkeypatch):
    """A docker client without its daemon, as it is often found."""
    for name, words in {"docker": "echo 'Cannot connect to the daemon' >&2; exit 1", "buildah": "exit 0"}.items():
        (place / name).write_text(f"#!/bin/sh\n{words}\n")
        (place / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:/bin")
    assert ENGINES["docker"].refusal() == "does not work: Cannot connect to the daemon"
    monkeypatch.setenv("PATH", str(place))
    assert engine_here().name == "buildah"
