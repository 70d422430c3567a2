"""How the client of packages compares answers with golden ones."""

from __future__ import annotations

import http.server
import threading

import numpy as np
import pytest

from mlpack.runtimes.templates.client import Failed, column, cut, difference, fetch, unlike

TOLERANCE = {"absolute": 0.01, "relative": 0.0}


@pytest.mark.parametrize(
    ("answer", "expected", "is_unlike"),
    [
        (0.505, 0.5, False), (0.52, 0.5, True), (1, 1.0, False), (1.005, 1, False), (2, 1, True),
        ("a", "a", False), ("a", "b", True), (True, 1, True), (1.0, True, True), (None, None, False), (None, 0.0, True),
        ([1, 0.5], [1, 0.505], False), ([1], [1, 2], True), ([1, 2], [1], True), ([1, 2], [2, 1], True),
        ({"a": [0.5]}, {"a": [0.501]}, False), ({"a": 1}, {"b": 1}, True), ({"a": 1}, {"a": 1, "b": 1}, True),
        (None, ["a"], True), (float("nan"), 0.5, True),
    ],
)  # fmt: skip
def test_numbers_may_be_off_by_the_tolerance_and_nothing_else_may(answer, expected, is_unlike):
    assert unlike(answer, expected, TOLERANCE) is is_unlike


def test_columns_come_back_as_they_were_written():
    assert column(['[1, "a"]', "null"], "BYTES", [[1, "a"], None]) == [[1, "a"], None]
    assert column(["[1]", "plain"], "BYTES", ["[1]", "plain"]) == ["[1]", "plain"]
    assert column(np.array([[1], [2]]), "INT64", [1, 2]) == [1, 2]
    assert column(np.array([[0.5]], np.float32), "FP32", [0.5]) == [0.5]
    assert unlike(column(["a", "b"], "BYTES", ["a"]), ["a"], TOLERANCE)
    assert unlike(column(np.array([1, 2]), "INT64", [1]), [1], TOLERANCE)


def test_a_server_that_is_busy_is_asked_again_when_it_says():
    class Busy(http.server.BaseHTTPRequestHandler):
        times = 0

        def do_GET(self):
            Busy.times += 1
            is_late = Busy.times > 2
            self.send_response(200 if is_late else (429, 503)[Busy.times - 1])
            if self.path == "/told" and not is_late:
                self.send_header("Retry-After", "0")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Busy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert fetch(f"{url}/told") == (b"{}", 2)
        assert Busy.times == 3
        Busy.times = 0
        with pytest.raises(Failed, match="answered 429"):
            fetch(f"{url}/untold")
        with pytest.raises(Failed, match="answered 503"):
            fetch(f"{url}/told", tries=1)
        server.shutdown()


def test_a_proxy_of_the_environment_does_not_answer_for_this_machine(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(Failed, match="answered 404"):
            fetch(f"http://127.0.0.1:{server.server_port}/nothing")
        server.shutdown()


def test_what_is_not_padded_is_compared_as_far_as_it_goes():
    expected = np.arange(24, dtype=np.float32).reshape(1, 8, 3)
    assert difference(expected[:, :5], cut(expected, expected[:, :5]), TOLERANCE) is None
    wrong = expected[:, :5] + 1
    assert "differs" in difference(wrong, cut(expected, wrong), TOLERANCE)
    for other in (np.zeros((2, 8, 3), np.float32), np.zeros((1, 8), np.float32), np.zeros((1, 9, 3), np.float32)):
        assert "expected float32" in difference(other, cut(expected, other), TOLERANCE)
    assert difference(None, cut(expected, None), TOLERANCE) == "is missing"
