"""Triton's queue policy and response cache: in the package, in a real Triton, and refused where they would mislead."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from other_servers import triton_options
from serving import replace
from tiny_artifacts import make, samples

import mlpack
from mlpack.core.runtime import PackageOptions
from mlpack.errors import StageFailed, UsageError
from mlpack.runtimes import RUNTIMES

CLIENTS = 6


def asked(url, name, width, value=1.0):
    tensor = {"name": "features", "datatype": "FP32", "shape": [1, width], "data": [value] * width}
    body = json.dumps({"inputs": [tensor]}).encode()
    try:
        with urllib.request.urlopen(f"{url}/v2/models/{name}/infer", body, timeout=120) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def told(url, name):
    with urllib.request.urlopen(f"{url}/v2/models/{name}/stats", timeout=60) as answer:
        (stats,) = json.load(answer)["model_stats"]
    return stats["inference_stats"]


@pytest.mark.slow
def test_answers_are_kept_and_those_of_other_inputs_are_not(kept, place):
    make(place / "artifacts")
    folder = mlpack.package("tiny-mlp", runtime="triton", cache="memory", cache_mb=16).path
    with RUNTIMES["triton"].serve(folder, triton_options(kept), place / "log") as running:
        url = running.urls["http"]
        first, again, other = (asked(url, "tiny-mlp", 8, value) for value in (1.0, 1.0, 2.0))
        assert [status for status, _ in (first, again, other)] == [200] * 3
        assert first[1]["outputs"] == again[1]["outputs"] != other[1]["outputs"]
        stats = told(url, "tiny-mlp")
    assert stats["cache_hit"]["count"] == 1
    assert stats["cache_miss"]["count"] >= 2


@pytest.mark.slow
def test_who_waits_too_long_is_refused_and_the_server_goes_on(kept, place):
    make(place / "artifacts", "slow")
    folder = mlpack.package("tiny-slow", runtime="triton", timeout_ms=20, max_batch=1).path
    with RUNTIMES["triton"].serve(folder, triton_options(kept), place / "log") as running:
        url = running.urls["http"]
        width = samples("slow")["features"].shape[1]
        with ThreadPoolExecutor(CLIENTS) as pool:
            answers = list(pool.map(lambda _: asked(url, "tiny-slow", width), range(CLIENTS)))
        refused = [answer["error"] for status, answer in answers if status != 200]
        assert 0 < len(refused) < CLIENTS
        assert all("timeout" in error.lower() for error in refused), refused
        assert asked(url, "tiny-slow", width)[0] == 200


def test_what_would_mislead_is_refused(tmp_path):
    alone = make(tmp_path / "alone", accuracy__batch_dependent=True, accuracy__batch=4)
    plain = make(tmp_path / "plain")
    for stored, options, said in (
        (alone, {"cache": "memory"}, "answers differently in different batches"),
        (alone, {"timeout_ms": 5.0}, "of Triton's queue"),
        (plain, {"cache": "redis"}, "its own memory"),
        (plain, {"cache_mb": 5}, "--cache is none"),
        (plain, {"rate_limit": 5.0}, "--rate-limit"),
    ):
        with pytest.raises(UsageError, match=said):
            RUNTIMES["triton"].layout(stored, PackageOptions(**options))


def test_backends_and_limits_that_do_not_fit_are_refused(tmp_path):
    alone = make(
        tmp_path / "alone", accuracy__batch_dependent=True, accuracy__batch=4, model__backend="openvino",
        accuracy__backend="openvino",
    )  # fmt: skip
    plain = make(tmp_path / "plain", model__backend_options={"threads": 2})
    card = make(
        tmp_path / "card", target={"name": "a100", "kind": "cuda"}, accuracy__simulated=True, latency=[],
        model__backend_options={"graph_optimizations": "off"},
    )  # fmt: skip
    for stored, options, said in (
        (alone, {"triton_backend": "own"}, "fills batches up"),
        (card, {"triton_backend": "python"}, "Triton's own backend runs it"),
        (card, {"limit_threads": 2}, "is of CPUs"),
        (plain, {"limit_threads": 1}, "takes 2"),
        (plain, {"priority": 2}, "whose threads are limited"),
    ):
        with pytest.raises(UsageError, match=said) as caught:
            RUNTIMES["triton"].layout(stored, PackageOptions(**options))
        assert caught.value.hint


def test_copies_fill_the_cpus_that_the_model_was_timed_on(cli, place):
    make(place / "artifacts", environment__cpus=6, model__backend_options={"threads": 2})
    words = ("package", "tiny-mlp", "--runtime")
    assert cli(*words, "triton", "--instances", "fill").code == 0
    config = (place / "tiny-mlp-1-triton" / "model_repository" / "tiny-mlp" / "config.pbtxt").read_text()
    assert "instance_group { count: 3 kind: KIND_CPU }" in config
    assert cli(*words, "fastapi", "--instances", "fill").code == 0
    assert json.loads((place / "tiny-mlp-1-fastapi" / "model.json").read_text())["limits"]["instances"] == 3
    for version, changes in ((2, {}), (3, {"environment__cpus": 6, "latency": []})):
        make(place / "artifacts", version=version, **changes)
        refused = cli("package", f"tiny-mlp@{version}", "--runtime", "triton", "--instances", "fill", "--json")
        assert (refused.code, "was not timed" in refused.document["error"]["message"]) == (2, True)
    assert cli(*words, "triton", "--instances", "some").code == 2
    for option in (("--limit-threads", "2"), ("--priority", "2"), ("--triton-backend", "own")):
        refused = cli(*words, "torchserve", *option, "--json")
        assert (refused.code, refused.document["error"]["message"]) == (2, f"{option[0]} is an option of Triton")


@pytest.mark.slow
def test_threads_are_limited_in_a_real_triton(kept, place):
    make(place / "artifacts")
    folder = mlpack.package("tiny-mlp", runtime="triton", instances=2, limit_threads=1, priority=2).path
    with RUNTIMES["triton"].serve(folder, triton_options(kept), place / "log") as running:
        url = running.urls["http"]
        with ThreadPoolExecutor(CLIENTS) as pool:
            answers = list(pool.map(lambda _: asked(url, "tiny-mlp", 8), range(CLIENTS)))
        assert [status for status, _ in answers] == [200] * CLIENTS
        with urllib.request.urlopen(f"{url}/v2/models/tiny-mlp/config", timeout=60) as answer:
            (group,) = json.load(answer)["instance_group"]
    assert group["rate_limiter"] == {"resources": [{"name": "threads", "global": True, "count": 1}], "priority": 2}
    # The server holds to it: an execution that can never be scheduled is not loaded.
    config = folder / "model_repository" / "tiny-mlp" / "config.pbtxt"
    more = config.read_text().replace('name: "threads" global: true count: 1', 'name: "threads" global: true count: 2')
    replace(folder, "model_repository/tiny-mlp/config.pbtxt", more)
    with (
        pytest.raises(StageFailed, match="esource"),
        RUNTIMES["triton"].serve(folder, triton_options(kept), place / "log"),
    ):
        pass


@pytest.mark.slow
def test_an_altered_model_is_not_served(kept, place):
    make(place / "artifacts")
    folder = mlpack.package("tiny-mlp", runtime="triton").path
    weights = folder / "model_repository" / "tiny-mlp" / "1" / "model.onnx.data"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    with (
        pytest.raises(StageFailed, match=r"model.onnx.data was altered.*the server is not started"),
        RUNTIMES["triton"].serve(folder, triton_options(kept), place / "log"),
    ):
        pass


def verified(folder, *words, **environment):
    command = [sys.executable, "-I", "-B", folder / "verified.py", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})


def test_what_becomes_the_server_compares_the_models_first(place):
    """As the image has it: the list and the models in places of their own."""
    make(place / "artifacts")
    folder = mlpack.package("tiny-mlp", runtime="triton").path
    assert 'CMD ["python3", "/opt/mlpack/verified.py", "tritonserver", ' in (folder / "Dockerfile").read_text()
    (place / "opt").mkdir()
    for name in ("verified.py", "mlpack-package.json"):
        shutil.copy(folder / name, place / "opt" / name)
    models = shutil.copytree(folder / "model_repository", place / "models")
    good = verified(place / "opt", "echo", "served", MODELS=str(models))
    assert (good.returncode, good.stdout) == (0, "served\n"), good.stderr
    (models / "tiny-mlp" / "config.pbtxt").write_text("other")
    bad = verified(place / "opt", "echo", "served", MODELS=str(models))
    assert (bad.returncode, bad.stdout) == (1, "")
    assert "tiny-mlp/config.pbtxt was altered" in bad.stderr
    (models / "tiny-mlp" / "config.pbtxt").unlink()
    assert "config.pbtxt is missing" in verified(place / "opt", "echo", MODELS=str(models)).stderr
    (place / "opt" / "mlpack-package.json").write_text("{}")
    assert "missing or damaged" in verified(place / "opt", "echo", MODELS=str(models)).stderr
