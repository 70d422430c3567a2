"""Tokens and rates: who may ask the server, and how often."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest
from serving import LAUNCH, free_port, run_client

from mlpack.runtimes.templates.fastapi.server.rate_limit import RateLimit, TooOften

INFER = "/v2/models/tiny-mlp/infer"
BODY = json.dumps({"inputs": [{"name": "features", "datatype": "FP32", "shape": [1, 8], "data": [1.0] * 8}]}).encode()
TOKEN = "correct-horse-battery"


def bearer(token):
    return {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}


def test_everything_but_the_health_checks_needs_the_token(packaged, serve):
    server = serve(packaged(access="token"), AUTH_TOKEN=TOKEN)
    for path in ("/v2/health/live", "/v2/health/ready"):
        assert server.exchange("GET", path)[0] == 200
    for method, path in (("GET", "/v2"), ("GET", "/metrics"), ("POST", INFER), ("POST", "/predict"), ("GET", "/no")):
        status, headers, answer = server.exchange(method, path, BODY if method == "POST" else None)
        assert (status, headers["WWW-Authenticate"]) == (401, "Bearer"), path
        assert json.loads(answer) == {"error": "this server needs 'Authorization: Bearer TOKEN'"}
    assert server.exchange("POST", INFER, BODY, bearer(TOKEN))[0] == 200
    assert server.exchange("POST", INFER, BODY, {"authorization": f"bearer {TOKEN}"})[0] == 200
    metrics = server.exchange("GET", "/metrics", None, bearer(TOKEN))[2].decode()
    assert 'inference_refused_total{reason="token"} 5.0' in metrics


NEARLY = {
    "longer": f"Bearer {TOKEN}!",
    "shorter": f"Bearer {TOKEN[:-1]}",
    "no scheme": TOKEN,
    "another scheme": f"Basic {TOKEN}",
    "no token": "Bearer",
    "nothing": "",
}


def test_what_is_nearly_the_token_is_not(packaged, serve):
    server = serve(packaged(), AUTH_TOKEN=TOKEN)
    for what, given in NEARLY.items():
        assert server.exchange("POST", INFER, BODY, {"Authorization": given})[0] == 401, what


def test_a_token_comes_from_a_file_and_the_client_sends_it(packaged, serve, tmp_path, monkeypatch):
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    folder = packaged(access="token")
    server = serve(folder, AUTH_TOKEN_FILE=str(tmp_path / "token"))
    assert "401" in run_client(folder, server.url).stdout
    monkeypatch.setenv("AUTH_TOKEN", TOKEN)
    assert run_client(folder, server.url).returncode == 0


def test_a_package_holds_no_token_and_asks_for_one(packaged, monkeypatch):
    monkeypatch.setenv("AUTH_TOKEN", TOKEN)
    folder = packaged(access="token")
    assert not any(TOKEN.encode() in path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert "environment: [AUTH_TOKEN]" in (folder / "compose.yaml").read_text()


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "set AUTH_TOKEN or AUTH_TOKEN_FILE"),
        ({"AUTH_TOKEN": "short"}, "at least 16 characters"),
        ({"AUTH_TOKEN": "sixteen characters"}, "no space"),
        ({"AUTH_TOKEN_FILE": "nowhere"}, "AUTH_TOKEN_FILE=nowhere cannot be read"),
        ({"AUTH_TOKEN": TOKEN, "AUTH_TOKEN_FILE": "nowhere"}, "are both set"),
    ],
)
def test_a_server_without_a_usable_token_does_not_start(packaged, environment, said):
    command = [sys.executable, "-I", "-B", "-c", LAUNCH, packaged(access="token")]
    environment = {"PORT": str(free_port()), **environment}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert said in done.stderr


def test_a_client_that_asks_too_often_is_told_when_to_come_again(packaged, serve):
    server = serve(packaged(rate_limit=0.01))
    assert server.exchange("POST", INFER, BODY)[0] == 200
    status, headers, answer = server.exchange("POST", INFER, BODY)
    assert status == 429
    assert 90 < int(headers["Retry-After"]) <= 100
    assert "too many requests from this address" in json.loads(answer)["error"]
    for _ in range(5):
        assert server.exchange("GET", "/v2/health/ready")[0] == 200
    assert server.metrics()['inference_refused_total{reason="rate"}'] == 1


def test_a_bucket_fills_again_and_each_client_has_its_own():
    now = [0.0]
    limit = RateLimit(2, clock=lambda: now[0])
    for _ in range(2):
        limit.check("a")
    with pytest.raises(TooOften) as caught:
        limit.check("a")
    assert caught.value.seconds == 1
    limit.check("b")
    now[0] = 0.5
    limit.check("a")
    with pytest.raises(TooOften):
        limit.check("a")
    now[0] = 1000.0
    for _ in range(2):
        limit.check("a")
    with pytest.raises(TooOften):
        limit.check("a")


def test_the_table_of_clients_stays_small():
    limit = RateLimit(1, clock=time.monotonic, most_clients=3)
    for turn in range(100):
        limit.check(str(turn))
    assert len(limit._buckets) == 3
