"""The table of benchmarks/compress_prune.py."""

from __future__ import annotations

from typing import Any

_MILLION = 1e6


def table(content: dict[str, Any]) -> str:
    """A row for each way to prune; of each the model that was only pruned and the one that was trained afterwards."""
    lines = [
        f"Of {content['sample']}, float32 in ONNX Runtime; speed at batch 1 / 8 is over the graph that is not pruned.",
        "",
        "| asked | by | criterion | trained | FLOPs gone | parameters | kB | drop, pt [90%] | speed | s | peak MB |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(_row(each) for each in content["rows"])])


def _row(row: dict[str, Any]) -> str:
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
