"""Sends the golden inputs and raw samples to a running server, one request at a time, and compares its answers.

    python client.py [URL]          (default http://127.0.0.1:8000)

Exit code 0: every answer is within the tolerance of golden/golden.json. Exit code 1: one is not, is missing
or empty, or the server cannot be asked. AUTH_TOKEN is sent where it is set. Needs numpy and nothing else.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(__file__).resolve().parent / "golden"
TIMEOUT_SECONDS = 60
TOKEN = {"Authorization": f"Bearer {os.environ['AUTH_TOKEN']}"} if os.environ.get("AUTH_TOKEN") else {}
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
        request = urllib.request.Request(url, body, {**(headers or {}), **TOKEN})  # noqa: S310 - the user's own URL
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310
            content = response.read()
            return content, int(response.headers.get("Inference-Header-Content-Length", len(content)))
    except urllib.error.HTTPError as error:
        raise Failed(f"{url} answered {error.code}: {error.read().decode(errors='replace')}") from error
    except OSError as error:
        raise Failed(f"{url} cannot be reached: {error}") from error


def packed(inputs: dict[str, np.ndarray], form: str) -> tuple[list[dict[str, Any]], bytes]:
    """Tensors as the protocol describes them, and the bytes that follow: `form` is "binary" or "json"."""
    raw = b""
    tensors: list[dict[str, Any]] = []
    for name, array in inputs.items():
        tensor: dict[str, Any] = {"name": name, "datatype": NAMES[array.dtype.name], "shape": list(array.shape)}
        if form == "binary":
            raw += array.tobytes()
            tensor["parameters"] = {"binary_data_size": array.nbytes}
        else:
            tensor["data"] = array.ravel().tolist()
        tensors.append(tensor)
    return tensors, raw


def packed_samples(samples: list[dict[str, Any]], fields: list[str], form: str) -> tuple[list[dict[str, Any]], bytes]:
    """Raw samples in the same way: a BYTES tensor per field; images as their bytes, or in base64."""
    raw = b""
    tensors = []
    for name in fields:
        tensor: dict[str, Any] = {"name": name, "datatype": "BYTES", "shape": [len(samples), 1]}
        values = [each[name] for each in samples]
        if isinstance(values[0], str):
            tensor["data"] = values
        elif form == "binary":
            files = [base64.b64decode(each["b64"]) for each in values]
            content = b"".join(len(each).to_bytes(4, "little") + each for each in files)
            tensor["parameters"] = {"binary_data_size": len(content)}
            raw += content
        else:
            tensor["data"] = [each["b64"] for each in values]
            tensor["parameters"] = {"content_type": "base64"}
        tensors.append(tensor)
    return tensors, raw


def infer(
    url: str, given: tuple[list[dict[str, Any]], bytes], outputs: list[str], columns: list[str], form: str
) -> Any:
    """Answers by output name: arrays, and lists for texts. `form` is "binary" where the server has that extension."""
    tensors, raw = given
    wanted: list[dict[str, Any]] = [{"name": name} for name in (*outputs, *columns)]
    for each in wanted[: len(outputs)] if form == "binary" else []:
        each["parameters"] = {"binary_data": True}
    head = json.dumps({"inputs": tensors, "outputs": wanted}).encode()
    headers = {"Content-Type": "application/json"}
    if form == "binary":
        headers = {
            "Content-Type": "application/octet-stream",
            "Inference-Header-Content-Length": str(len(head)),
        }
    content, length = fetch(url, head + raw, headers)
    answers: dict[str, Any] = {}
    position = length
    for tensor in json.loads(content[:length])["outputs"]:
        if tensor["datatype"] == "BYTES":
            answers[tensor["name"]] = tensor["data"]
            continue
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


def unlike(answer: Any, expected: Any, tolerance: dict[str, float]) -> bool:
    """Whether a value of an answer is another one than expected: numbers beyond the tolerance, all else at all."""
    kinds = {type(answer), type(expected)}
    if float in kinds and kinds <= {int, float}:
        # Not `>`: NaN compares false with everything.
        return not abs(answer - expected) <= tolerance["absolute"] + tolerance["relative"] * abs(expected)
    if type(answer) is not type(expected):
        return True
    if isinstance(expected, list):
        pairs = zip(answer, expected, strict=False)
        return len(answer) != len(expected) or any(unlike(*each, tolerance) for each in pairs)
    if isinstance(expected, dict):
        return answer.keys() != expected.keys() or any(
            unlike(answer[key], expected[key], tolerance) for key in expected
        )
    return bool(answer != expected)


def column(values: Any, datatype: str, expected: list[Any]) -> list[Any]:
    """A column's values as the golden answers have them: what travels as text can be JSON."""
    listed = np.asarray(values).ravel().tolist() if datatype != "BYTES" else list(values)
    if datatype == "FP32":
        # Its digits beyond those of a float32 are not the server's.
        return [float(each) for each in listed]
    if datatype != "BYTES" or len(listed) != len(expected):
        return listed
    pairs = zip(listed, expected, strict=True)
    return [each if isinstance(want, str) else json.loads(each) for each, want in pairs]


def part(array: np.ndarray, turn: int, turns: int) -> np.ndarray:
    """The rows that belong to one of so many equal requests."""
    rows = len(array) // turns
    return array[turn * rows : (turn + 1) * rows]


def cut(expected: np.ndarray, answer: np.ndarray | None) -> np.ndarray:
    """What is expected of an answer to a raw sample, which is not padded to the longest golden one."""
    if answer is None or answer.ndim != expected.ndim or len(answer) != len(expected):
        return expected
    return expected[tuple(slice(0, size) for size in answer.shape)]


def tell(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def replay_tensors(address: str, form: str, golden: dict[str, Any], expected: dict[str, np.ndarray]) -> tuple[int, int]:
    """Requests of golden inputs, and how many of their outputs are wrong."""
    with np.load(GOLDEN / "inputs.npz") as inputs:
        given = {name: np.ascontiguousarray(inputs[name]) for name in inputs.files}
    rows = golden["rows_per_request"]
    requests = len(next(iter(given.values()))) // rows if rows else 1
    target = f"{address}/v2/models/{golden['model']}/versions/{golden['version']}/infer"
    wrong = 0
    for turn in range(requests):
        asking = {name: part(array, turn, requests) for name, array in given.items()} if rows else given
        answers = infer(target, packed(asking, form), list(expected), [], form)
        for name, array in expected.items():
            problem = difference(answers.get(name), part(array, turn, requests), golden["tolerance"][name])
            if problem:
                wrong += 1
                tell(f"request {turn + 1}: output {name!r} {problem}")
    return requests, wrong


def replay_raw(address: str, form: str, golden: dict[str, Any], expected: dict[str, np.ndarray]) -> tuple[int, int]:
    """Requests of golden raw samples, and how many of their outputs and columns are wrong."""
    raw = golden["raw"]
    samples = lines("raw.jsonl")
    kept = lines("answers.jsonl") if raw["columns"] else []
    rows = golden["rows_per_request"] or len(samples)
    requests = len(samples) // rows
    target = f"{address}/v2/models/{raw['model']}/versions/{golden['version']}/infer"
    wrong = 0
    for turn in range(requests):
        given = packed_samples(samples[turn * rows : (turn + 1) * rows], raw["fields"], form)
        answers = infer(target, given, raw["outputs"], list(raw["columns"]), form)
        for name in raw["outputs"]:
            want = cut(part(expected[name], turn, requests), answers.get(name))
            problem = difference(answers.get(name), want, golden["tolerance"][name])
            if problem:
                wrong += 1
                tell(f"raw request {turn + 1}: output {name!r} {problem}")
        for name, datatype in raw["columns"].items():
            hoped = [each[name] for each in kept[turn * rows : (turn + 1) * rows]]
            got = column(answers[name], datatype, hoped) if name in answers else None
            if unlike(got, hoped, raw["tolerance"]):
                wrong += 1
                tell(f"raw request {turn + 1}: {name!r} is {got}, expected {hoped}")
    return requests, wrong


def lines(name: str) -> list[dict[str, Any]]:
    """The objects in a golden file, one a line."""
    return [json.loads(line) for line in (GOLDEN / name).read_text(encoding="utf-8").split("\n") if line]


def main() -> int:
    """Replay and compare; the exit code."""
    address = (sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000").rstrip("/")
    golden = json.loads((GOLDEN / "golden.json").read_text())
    with np.load(GOLDEN / "outputs.npz") as outputs:
        expected = {name: outputs[name] for name in golden["tolerance"]}
    replays = {"golden": replay_tensors, **({"raw": replay_raw} if "raw" in golden else {})}
    failed = False
    try:
        extensions = json.loads(fetch(f"{address}/v2")[0]).get("extensions", [])
        form = "binary" if "binary_tensor_data" in extensions else "json"
        for what, replay in replays.items():
            asked, wrong = replay(address, form, golden, expected)
            tell(f"{asked} {what} requests, {wrong} differences")
            failed = failed or bool(wrong) or not asked
    except (Failed, KeyError, ValueError) as error:
        tell(f"no usable answer: {error}")
        return 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
