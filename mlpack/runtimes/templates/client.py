"""Sends the golden inputs to a running server, one request at a time, and compares its answers.

    python client.py [URL]          (default http://127.0.0.1:8000)

Exit code 0: every answer is within the tolerance of golden/golden.json. Exit code 1: one is not, is missing
or empty, or the server cannot be asked. Needs numpy and nothing else.
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(__file__).resolve().parent / "golden"
TIMEOUT_SECONDS = 60
NAMES = {
    "bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64",
    "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64",
    "float16": "FP16", "float32": "FP32", "float64": "FP64",
}  # fmt: skip
DTYPES = {datatype: np.dtype(name) for name, datatype in NAMES.items()}


class Failed(Exception):
    """The server cannot be asked, or what it sends is no answer."""


def fetch(url: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> tuple[bytes, int]:
    """The response body, and the length of its JSON part."""
    try:
        request = urllib.request.Request(url, body, headers or {})  # noqa: S310 - the user's own URL
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310
            content = response.read()
            return content, int(response.headers.get("Inference-Header-Content-Length", len(content)))
    except urllib.error.HTTPError as error:
        raise Failed(f"{url} answered {error.code}: {error.read().decode(errors='replace')}") from error
    except OSError as error:
        raise Failed(f"{url} cannot be reached: {error}") from error


def infer(url: str, inputs: dict[str, np.ndarray], outputs: list[str], form: str) -> dict[str, np.ndarray]:
    """Answers by output name. `form` is "binary" where the server lists that extension, else "json"."""
    raw = b""
    tensors: list[dict[str, Any]] = []
    for name, array in inputs.items():
        datatype = NAMES[array.dtype.name]
        tensor: dict[str, Any] = {"name": name, "datatype": datatype, "shape": list(array.shape)}
        if form == "binary":
            raw += array.tobytes()
            tensor["parameters"] = {"binary_data_size": array.nbytes}
        else:
            tensor["data"] = array.ravel().tolist()
        tensors.append(tensor)
    wanted = [{"name": name, "parameters": {"binary_data": True}} if form == "binary" else {"name": name}
              for name in outputs]  # fmt: skip
    head = json.dumps({"inputs": tensors, "outputs": wanted}).encode()
    headers = {"Content-Type": "application/json"}
    if form == "binary":
        headers = {
            "Content-Type": "application/octet-stream",
            "Inference-Header-Content-Length": str(len(head)),
        }
    content, length = fetch(url, head + raw, headers)
    answers: dict[str, np.ndarray] = {}
    position = length
    for tensor in json.loads(content[:length])["outputs"]:
        dtype = DTYPES[tensor["datatype"]]
        if "data" in tensor:
            array = np.array(tensor["data"], dtype)
        else:
            size = tensor["parameters"]["binary_data_size"]
            array = np.frombuffer(content[position : position + size], dtype)
            position += size
        answers[tensor["name"]] = array.reshape(tensor["shape"])
    return answers


def difference(answer: np.ndarray | None, expected: np.ndarray, tolerance: dict[str, float]) -> str | None:
    """What is wrong with an answer; None where |answer - expected| <= absolute + relative * |expected|."""
    if answer is None:
        return "is missing"
    if answer.size == 0:
        return "is empty"
    # Servers that cannot name a tensor without dims send [rows, 1] for [rows].
    if answer.shape not in {expected.shape, (*expected.shape, 1)} or answer.dtype != expected.dtype:
        return f"is {answer.dtype}{list(answer.shape)}, expected {expected.dtype}{list(expected.shape)}"
    got, want = answer.astype(np.float64).ravel(), expected.astype(np.float64).ravel()
    with np.errstate(invalid="ignore"):
        off = np.abs(got - want)
        limit = tolerance["absolute"] + tolerance["relative"] * np.abs(want)
        wrong = ~((got == want) | (off <= limit))
    if not wrong.any():
        return None
    worst = int(np.argmax(np.where(wrong, np.nan_to_num(off - limit, nan=np.inf), -np.inf)))
    return f"differs: {got[worst]:.8g}, expected {want[worst]:.8g} within {limit[worst]:.2g}"


def part(array: np.ndarray, turn: int, turns: int) -> np.ndarray:
    """The rows that belong to one of so many equal requests."""
    rows = len(array) // turns
    return array[turn * rows : (turn + 1) * rows]


def tell(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Replay and compare; the exit code."""
    url = (sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000").rstrip("/")
    golden = json.loads((GOLDEN / "golden.json").read_text())
    with np.load(GOLDEN / "inputs.npz") as inputs, np.load(GOLDEN / "outputs.npz") as outputs:
        given = {name: np.ascontiguousarray(inputs[name]) for name in inputs.files}
        expected = {name: outputs[name] for name in golden["tolerance"]}
    rows = golden["rows_per_request"]
    total = len(next(iter(given.values()))) if rows else 1
    step = rows or 1
    requests = total // step
    wrong = asked = 0
    try:
        extensions = json.loads(fetch(f"{url}/v2")[0]).get("extensions", [])
        form = "binary" if "binary_tensor_data" in extensions else "json"
        target = f"{url}/v2/models/{golden['model']}/versions/{golden['version']}/infer"
        for turn in range(requests):
            asking = {name: part(array, turn, requests) for name, array in given.items()} if rows else given
            answers = infer(target, asking, list(expected), form)
            asked += 1
            for name, array in expected.items():
                want = part(array, turn, requests)
                problem = difference(answers.get(name), want, golden["tolerance"][name])
                if problem:
                    wrong += 1
                    tell(f"request {asked}: output {name!r} {problem}")
    except (Failed, KeyError, ValueError) as error:
        tell(f"no usable answer: {error}")
        return 1
    tell(f"{asked} golden requests, {wrong} differences")
    return 1 if wrong or not asked else 0


if __name__ == "__main__":
    sys.exit(main())
