"""What `tables.py` says of the results of `compress_*.py`."""

from __future__ import annotations

from typing import Any

from markdown_table import table

Result = dict[str, Any]
_MILLION = 1e6


def prune(content: Result) -> str:
    """A row for each way to prune; of each the model that was only pruned and the one that was trained afterwards."""
    lines = [
        f"Of {content['sample']}, float32 in ONNX Runtime; speed at batch 1 / 8 is over the graph that is not pruned.",
        "",
        "| asked | by | criterion | trained | FLOPs gone | parameters | kB | drop, pt [90%] | speed | s | peak MB |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(_pruned(each) for each in content["rows"])])


def _pruned(row: Result) -> str:
    where = f"| {row['amount']:.0%} | {row['by']} | {row['criterion']} |"
    if "error" in row:
        return f"{where} – | {row['error']} | | | | | | |"
    low, high = (100 * end for end in row["drop_ci90"])
    peak = "–" if row["peak_bytes"] is None else f"{row['peak_bytes'] / _MILLION:,.0f}"
    speeds = " / ".join(f"{each['speedup']:.2f}" for each in row["latency"].values())
    return (
        f"{where} {'yes' if row['recovery'] else 'no'} | {row['flops_gone']:.1%} | "
        f"{row['parameters_before']:,} → {row['parameters_after']:,} | {row['size_bytes'] / 1e3:,.0f} | "
        f"{100 * row['drop']:.2f} [{low:.2f}, {high:.2f}] | {speeds} × | {row['seconds']:.0f} | {peak} |"
    )


def int4(content: Result) -> str:
    """A row per way and block size: what it costs, and beside the float graph what it gains."""
    plain = {row["model"]: row for row in content["rows"] if not row["by"]}
    rows = []
    for row in content["rows"]:
        where_ = [row["model"], row["by"], row["method"], str(row["block"] or "")]
        if row["error"]:
            rows.append([*where_, f"refused: {row['error'][:60]}", *[""] * 5])
            continue
        low, high = row["drop_ci90"]
        base = plain[row["model"]]["p50_ms"]
        faster = " / ".join(f"{base[batch] / ms:.2f}" for batch, ms in row["p50_ms"].items())
        took = ["", ""] if row["seconds"] is None else [f"{row['seconds']:.1f} s", f"{row['peak_mb']:.0f} MB"]
        drop = f"{row['drop']:.2f} [{low:.2f}, {high:.2f}]" if row["by"] else f"({row['value']:.2f})"
        rows.append([*where_, drop, f"{row['size_mb']:.1f} MB", faster, *took])
    head = ["model", "by", "method", "block", "drop, 90%", "size", "faster, batch 1 / 8", "in", "peak"]
    return (
        f"{table(head, rows)}\n\nDrop in points of the metric on the confirming rows; in brackets alone the float "
        "graph's own value. Faster than the float graph, both on ONNX Runtime. Peak: of the process for mlpack, over "
        "what the libraries hold for onnxruntime's quantizers. These leave Gemm in float, so are handed MatMul and "
        "Add in its place; all but rtn leave tables in float."
    )


def qat(content: Result) -> str:
    """A row per model and way to quantize: the drop before and after on both backends, speed, time and memory."""
    rows = [
        [
            row["model"], row["way"],
            *(_fallen(row[when][backend]) for backend in ("onnxruntime", "openvino") for when in ("before", "after")),
            f"{row['sqnr_db'][0]:.1f} → {row['sqnr_db'][1]:.1f} dB",
            *(_beside_plain(row["speed"].get(size)) for size in ("1", "8")),
            f"{row['seconds'][0]:.0f} → {row['seconds'][1]:.0f} s", f"{row['peak_mb'][0]} → {row['peak_mb'][1]} MB",
        ]
        for row in content["rows"]
    ]  # fmt: skip
    head = ["model", "int8 of", "drop, ONNX Runtime", "trained", "drop, OpenVINO", "trained", "SQNR", "P50, batch 1",
            "batch 8", "time", "peak memory"]  # fmt: skip
    samples = {row["model"]: row["before"]["onnxruntime"]["samples"] for row in content["rows"]}
    judged = ", ".join(f"{name} {count:,}" for name, count in samples.items())
    return (
        f"{table(head, rows)}\n\nDrops in points of the original's metric [90%], on rows that nothing has seen "
        f"({judged}). Bold: inside the limit of {content['limit']}. SQNR of the answers to "
        "calibration rows. P50: how many times as fast the trained graph is as the same one untrained [95%]."
    )


def _fallen(judged: Result) -> str:
    low, high = (100 * end for end in judged["drop_ci90"])
    told = f"{100 * judged['drop']:.2f} [{low:.2f}, {high:.2f}]"
    return f"**{told}**" if judged["drop"] <= judged["limit"] else told


def _beside_plain(speed: Result | None) -> str:
    if speed is None:
        return "–"
    low, high = speed["ci95"]
    return f"{speed['times']:.2f} × [{low:.2f}, {high:.2f}]"


def large(content: Result) -> str:
    """What went in and what came out, a row per stage, and the weights that were held to what was generated."""
    gb = {name: content[name] / 1e9 for name in ("folder_bytes", "artifact_bytes", "peak_bytes", "together_bytes")}
    answer = content["answer"]
    said = (
        f"{content['parameters'] / 1e9:.2f} billion parameters, {gb['folder_bytes']:.2f} GB in bfloat16 → "
        f"{gb['artifact_bytes']:.2f} GB in int4 ({content['method']}) in {content['seconds']:.0f} s. The largest "
        f"process held {gb['peak_bytes']:.2f} GB, all together {gb['together_bytes']:.2f} GB; allowed: "
        f"{content['allowed_bytes'] / 1e9:.0f} GB for each. ONNX Runtime opens the result in "
        f"{answer['open_seconds']:.1f} s, answers {answer['tokens']} tokens in {answer['seconds']:.1f} s, and holds "
        f"{answer['peak_bytes'] / 1e9:.2f} GB."
    )
    stages = [
        [f"{row['stage']} {row['what']}".strip(), f"{row['seconds']:.1f} s", f"{row['peak_rss_bytes'] / 1e9:.2f} GB"]
        for row in content["stages"]
    ]
    weights = [[f"`{row['module']}`", f"{row['bits']}", f"{row['error']:.3f}"] for row in content["weights"]]
    return "\n\n".join(
        [
            said,
            table(["stage", "time", "peak memory"], stages),
            table(["weight", "bits", "relative error"], weights),
        ]
    )


def language(content: Result) -> str:
    """A row per library, method and block size: perplexity, size, speed over PyTorch eager, time and memory."""
    rows = []
    for row in content["rows"]:
        where_ = [row["by"] or "–", row["method"], str(row["block"] or "")]
        if row["error"]:
            rows.append([*where_, f"refused: {row['error'][:60]}", *[""] * 5])
            continue
        low, high = row["drop_ci90"]
        rise = f"{row['value']:.2f}: {row['drop']:+.2f} [{low:.2f}, {high:.2f}]" if row["by"] else f"{row['value']:.2f}"
        took = ["", ""] if row["seconds"] is None else [f"{row['seconds']:.1f} s", f"{row['peak_mb']:.0f} MB"]
        faster = " / ".join(f"{each:.2f}" for each in row["faster"].values())
        rows.append([*where_, rise, f"{row['size_bytes'] / 1e6:.1f} MB", faster, row["runs_as"], *took])
    head = [
        "by",
        "method",
        "block",
        "perplexity, its rise [90%]",
        "size",
        "faster, batch 1 / 8",
        "runs as",
        "in",
        "peak",
    ]
    samples = next(row["samples"] for row in content["rows"] if row["error"] is None)
    return (
        f"{table(head, rows)}\n\nOn {samples:,} snippets that nothing has seen. Faster than the float model in PyTorch "
        "eager, 32 tokens at a time. Peak: of the process for mlpack, over what is imported for the others, whose "
        "tables and heads stay in float."
    )


def together(content: Result) -> str:
    """A row per model and way; the last columns say how much faster both together are than what the row has."""
    rows = []
    for found in content["rows"]:
        for way, run in found["runs"].items():
            told = run["accuracy"]
            low, high = (100 * end for end in told["drop_ci90"])
            sizes = f"{run['size_before_bytes'] / 1e6:.3g} → {run['size_bytes'] / 1e6:.3g} MB"
            drop = f"{told['verdict']}: {100 * told['drop']:.2f} [{low:.2f}, {high:.2f}]"
            runs_as = f"{run['numerics']} on {run['backend']}"
            rows.append([found["model"], way, runs_as, drop, sizes, *_together_over(found["timed"][way])])
        rows.append([found["model"], "original", "PyTorch eager", "", "", *_together_over(found["timed"]["original"])])
    head = ["model", "what", "runs as", "drop, pt [90%]", "size", "P50 ms, batch 1 / 8", "both are faster by, batch 1",
            "batch 8"]  # fmt: skip
    limits = ", ".join(f"{found['model']} {found['limit']} on {_samples(found):,} rows" for found in content["rows"])
    return f"{table(head, rows)}\n\nLargest drop allowed: {limits}. Times in turns, over launches [95%]."


def _together_over(timed: Result) -> list[str]:
    p50 = " / ".join(f"{each['p50_ms']:.3g}" for each in timed.values())
    if any("together_over" not in each for each in timed.values()):
        return [p50, *[""] * len(timed)]
    spans = (each["ci95"] or (float("nan"),) * 2 for each in timed.values())
    faster = zip((each["together_over"] for each in timed.values()), spans, strict=True)
    return [p50, *(f"{middle:.2f} × [{low:.2f}, {high:.2f}]" for middle, (low, high) in faster)]


def _samples(found: Result) -> int:
    return int(next(iter(found["runs"].values()))["accuracy"]["samples"])
