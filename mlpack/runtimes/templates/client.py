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
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    # Model, inputs by name, names of wanted outputs: the answer by output name.
    Ask = Callable[[str, dict[str, np.ndarray], list[str]], dict[str, Any]]

TIMEOUT_SECONDS = 60
HERE = {"127.0.0.1", "::1", "localhost"}
TOKEN = {"Authorization": f"Bearer {os.environ['AUTH_TOKEN']}"} if os.environ.get("AUTH_TOKEN") else {}
BUSY = {429, 503}
NAMES = {
    "bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64",
    "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64",
    "float16": "FP16", "float32": "FP32", "float64": "FP64",
}  # fmt: skip
DTYPES = {datatype: np.dtype(name) for name, datatype in NAMES.items()}


class Failed(Exception):
    """The server cannot be asked, or what it sends is no answer."""


def fetch(
    url: str, body: bytes | None = None, headers: dict[str, str] | None = None, tries: int = 10
) -> tuple[bytes, int]:
    """The response body, and the length of its JSON part. A server that says when to come again is asked again then."""
    try:
        request = urllib.request.Request(url, body, {**(headers or {}), **TOKEN})  # noqa: S310 - the user's own URL
        # A proxy that the environment names must not answer for a server on this machine.
        proxies = urllib.request.ProxyHandler({} if urlsplit(url).hostname in HERE else None)
        with urllib.request.build_opener(proxies).open(request, timeout=TIMEOUT_SECONDS) as response:
            content = response.read()
            return content, int(response.headers.get("Inference-Header-Content-Length", len(content)))
    except urllib.error.HTTPError as error:
        wait_s = error.headers.get("Retry-After", "")
        if error.code in BUSY and wait_s.isdecimal() and tries > 1:
            time.sleep(min(int(wait_s), TIMEOUT_SECONDS))
            return fetch(url, body, headers, tries - 1)
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
) -> dict[str, Any]:
    """Answers by output name: arrays, and lists for texts. `form` is "binary" where the server has that extension."""
    tensors, raw = given
    wanted: list[dict[str, Any]] = [{"name": name} for name in (*outputs, *columns)]
    for each in wanted[: len(outputs)] if form == "binary" else []:
        each["parameters"] = {"binary_data": True}
    head = json.dumps({"inputs": tensors, "outputs": wanted}).encode()
    headers = {"Content-Type": "application/json"}
    if form == "binary":
        headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    content, length = fetch(url, head + raw, headers)
    try:
        return unpacked(content, length)
    except (KeyError, TypeError, ValueError) as error:
        raise Failed(f"{url} sent no answer of the protocol: {error!r}") from error


def unpacked(content: bytes, length: int) -> dict[str, Any]:
    """The outputs in a body of which so many bytes are JSON."""
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
        # Some servers send a shape and no values: that is an empty answer, not one of zeros.
        answers[tensor["name"]] = array.reshape(tensor["shape"]) if array.size else array
    return answers


class Door:
    """A server's HTTP address, and how tensors are written there. One without a version tells nothing of itself."""

    def __init__(self, address: str, version: str | None) -> None:
        self.address = address
        self.versions = "" if version is None else f"/versions/{version}"
        self.server = {} if version is None else json.loads(fetch(f"{address}/v2")[0])
        self.form = "binary" if "binary_tensor_data" in self.server.get("extensions", []) else "json"

    def ask(self, model: str, inputs: dict[str, np.ndarray], outputs: list[str]) -> dict[str, Any]:
        """The answer to tensors."""
        return infer(self._url(model), packed(inputs, self.form), outputs, [], self.form)

    def ask_raw(
        self, model: str, samples: list[dict[str, Any]], fields: list[str], outputs: list[str], columns: list[str]
    ) -> dict[str, Any]:
        """The answer to raw samples."""
        return infer(self._url(model), packed_samples(samples, fields, self.form), outputs, columns, self.form)

    def _url(self, model: str) -> str:
        return f"{self.address}/v2/models/{model}{self.versions}/infer"


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


@dataclass(frozen=True)
class Output:
    """An output or column of one request: what came, what was expected, what is wrong; None where that is nothing."""

    request: int
    name: str
    got: Any
    expected: Any
    problem: str | None


class Golden:
    """The folder golden/ of a package: what to ask, and what to expect."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.record = json.loads((folder / "golden.json").read_text(encoding="utf-8"))
        with np.load(folder / "inputs.npz") as arrays:
            self.inputs = {name: np.ascontiguousarray(arrays[name]) for name in arrays.files}
        with np.load(folder / "outputs.npz") as arrays:
            self.expected = {name: arrays[name] for name in self.record["tolerance"]}

    @property
    def samples(self) -> int:
        """How many rows the inputs have."""
        return len(next(iter(self.inputs.values())))

    def requests(self, rows: int | None) -> list[dict[str, np.ndarray]]:
        """The inputs in requests of so many rows; None: one request with all, as the model has no batch."""
        turns = self.samples // rows if rows else 1
        return [{name: part(array, turn, turns) for name, array in self.inputs.items()} for turn in range(turns)]

    def lines(self, name: str) -> list[dict[str, Any]]:
        """The objects in one of its files, one a line."""
        return [json.loads(line) for line in (self.folder / name).read_text(encoding="utf-8").split("\n") if line]


def replay_tensors(ask: Ask, golden: Golden, rows: int | None) -> Iterator[Output]:
    """Send the golden inputs in requests of so many rows, one after the other; each output as it was answered."""
    requests = golden.requests(rows)
    for turn, inputs in enumerate(requests):
        answers = ask(golden.record["model"], inputs, list(golden.expected))
        for name, array in golden.expected.items():
            want, got = part(array, turn, len(requests)), answers.get(name)
            yield Output(turn + 1, name, got, want, difference(got, want, golden.record["tolerance"][name]))


def replay_raw(door: Door, golden: Golden) -> Iterator[Output]:
    """The same for golden raw samples: outputs, and the columns that the pipeline makes of them."""
    raw = golden.record["raw"]
    samples = golden.lines("raw.jsonl")
    kept = golden.lines("answers.jsonl") if raw["columns"] else []
    rows = golden.record["rows_per_request"] or len(samples)
    turns = len(samples) // rows
    for turn in range(turns):
        sent = slice(turn * rows, (turn + 1) * rows)
        answers = door.ask_raw(raw["model"], samples[sent], raw["fields"], raw["outputs"], list(raw["columns"]))
        for name in raw["outputs"]:
            got = answers.get(name)
            want = cut(part(golden.expected[name], turn, turns), got)
            yield Output(turn + 1, name, got, want, difference(got, want, golden.record["tolerance"][name]))
        for name, datatype in raw["columns"].items():
            hoped = [each[name] for each in kept[sent]]
            found = column(answers[name], datatype, hoped) if name in answers else None
            problem = f"is {found}, expected {hoped}" if unlike(found, hoped, raw["tolerance"]) else None
            yield Output(turn + 1, name, found, hoped, problem)


def tell(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Replay and compare; the exit code."""
    address = (sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000").rstrip("/")
    golden = Golden(Path(__file__).resolve().parent / "golden")
    failed = False
    try:
        door = Door(address, golden.record["version"])
        replays = {"golden": replay_tensors(door.ask, golden, golden.record["rows_per_request"])}
        if "raw" in golden.record:
            replays["raw"] = replay_raw(door, golden)
        for what, outputs in replays.items():
            asked = wrong = 0
            for each in outputs:
                asked = each.request
                if each.problem:
                    wrong += 1
                    kind = "raw request" if what == "raw" else "request"
                    tell(f"{kind} {each.request}: output {each.name!r} {each.problem}")
            tell(f"{asked} {what} requests, {wrong} differences")
            failed = failed or bool(wrong) or not asked
    except (Failed, KeyError, ValueError) as error:
        tell(f"no usable answer: {error}")
        return 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
