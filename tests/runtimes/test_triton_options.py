"""Triton's queue policy and response cache: in the package, in a real Triton, and refused where they would mislead."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from other_servers import triton_options
from tiny_artifacts import make, samples

import mlpack
from mlpack.core.runtime import PackageOptions
from mlpack.errors import UsageError
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
