"""Renders what gpu.py found on one device into Markdown: benchmarks/gpu-CARD.md."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np

from mlpack.measure.launches import p50_over_launches

Found = dict[str, Any]
# An interval over launches that hardly agree says no more than that.
_WIDEST = 100
HEAD = [
    "backend", "numerics", "batch", "samples/s", "P50 [95%]", "P99", "request P50", "energy", "floor", "× floor",
    "TFLOP/s", "error",
]  # fmt: skip
HOW = (
    "P50 and P99 are of calls on rows that lie on the device, by the device's own clock where the backend shows one "
    "(else `w`: by the wall's); a request brings its rows and fetches its answers, by the wall's clock. Intervals are "
    "over launches, each a process of its own; a P99 is the median of the launches', and is left out where a launch "
    "had too few calls for one. Energy is what the device took for one sample. The floor is the least that the graph "
    "can take on this device in these numerics (`plan` shows the same), TFLOP/s are the operations that the graph has "
    "by the plain way over P50; a convolution may need fewer. The error is the relative L2 distance of the answers to "
    "the original's, in float32 on the CPU; the weights of resnet-18 and bert-base are random. float32 is torch's "
    "default, which lets cuDNN convolve in TF32."
)


def page(content: Found) -> str:
    """The whole page."""
    title = content["title"]
    parts = [
        f"# {title}: every way to run a model there",
        "Rendered from results/ by benchmarks/tables.py, measured by `make gpu`; see README.md.",
        _where(content),
        _tests(content["tests"]),
    ]
    models = dict.fromkeys(each["model"] for each in content["found"].values())
    for model in models:
        parts += [f"## {model}", _table(model, content)]
    if models:
        parts.append(HOW)
    for kind, said in (("left_out", "Left out"), ("failed", "Failed")):
        if content[kind]:
            rows = [[f"`{name}`", _cell(reason)] for name, reason in content[kind].items()]
            parts += [f"## {said}", _markdown(["what", "why"], rows)]
    return "\n\n".join(parts) + "\n"


def _where(content: Found) -> str:
    libraries = {"torch", "onnxruntime", "onnxruntime-gpu", "tensorrt"}
    versions = ", ".join(f"{name} {version}" for name, version in content["libraries"].items() if name in libraries)
    driver = f", driver {content['driver']}" if content["driver"] else ""
    short = " **Short timing runs: a trial of the script, not a measurement.**" if content["quick"] else ""
    return (
        f"{content['date'][:10]}, {content['gpu'] or content['cpu']}{driver}, {content['machine']['threads']} threads; "
        f"Python {content['python']}, {versions}, mlpack {content['mlpack']}.{short}"
    )


def _tests(tests: Found | None) -> str:
    if tests is None:
        return "Tests marked `gpu`: not run yet."
    counts = f"{tests['passed']} passed, {len(tests['failures'])} failed, {len(tests['skipped'])} skipped"
    lines = [f"Tests marked `gpu`: {counts}."]
    for kind, said in (("failures", "failed"), ("skipped", "skipped")):
        lines += [f"- {said}: `{name}`: {_cell(reason)}" for name, reason in tests[kind].items()]
    return "\n".join(lines)


def _table(model: str, content: Found) -> str:
    facts = content["facts"].get(model)
    rows = [
        _row(each, str(batch), facts)
        for each in content["found"].values()
        if each["model"] == model
        for batch in content["settings"]["batches"]
    ]
    slowed = sorted(
        {
            why
            for each in content["found"].values()
            if each["model"] == model
            for launch in each["launches"]
            for block in launch["batches"].values()
            for why in block["slowed"]
        }
    )
    note = f"\n\nThe card ran below its clocks at times: {', '.join(slowed)}." if slowed else ""
    return _markdown(HEAD, rows) + note


def _row(entry: Found, batch: str, facts: Found | None) -> list[str]:
    blocks = [launch["batches"][batch] for launch in entry["launches"]]
    by_device = all(block["device"] for block in blocks)
    clocks = [block["device"] if by_device else block["wall"] for block in blocks]
    p50, interval = p50_over_launches([np.array([clock["p50_ms"]]) for clock in clocks])
    p99 = None if any(clock["p99_ms"] is None for clock in clocks) else _median(clock["p99_ms"] for clock in clocks)
    energy = None if any(block["energy_mj"] is None for block in blocks) else _median(b["energy_mj"] for b in blocks)
    floor = None if facts is None else facts["floor_ms"][batch].get(entry["numerics"])
    rate = None if facts is None else facts["operations"][batch] / p50 / 1e9
    told = interval is not None and interval[1] <= _WIDEST * interval[0]
    spread = "" if not told or interval is None else f" [{_ms(interval[0])}, {_ms(interval[1])}]"
    return [
        entry["backend"],
        entry["numerics"],
        batch,
        f"{_median(block['samples_per_s'] for block in blocks):,.0f}",
        f"{_ms(p50)}{spread} ms{'' if by_device else ' w'}",
        "–" if p99 is None else f"{_ms(p99)} ms",
        f"{_ms(_median(block['request_p50_ms'] for block in blocks))} ms",
        "–" if energy is None else f"{energy:.3g} mJ",
        "–" if floor is None else f"{_ms(floor)} ms",
        "–" if floor is None else f"{p50 / floor:.1f}",
        "–" if rate is None else f"{rate:.3g}",
        f"{max(launch['error'] for launch in entry['launches']):.1e}",
    ]


def _median(values: Any) -> float:
    return float(statistics.median(values))


def _ms(value: float) -> str:
    return f"{value:.3g}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
