"""How often are two identical models called different? An interval of 95% may do so in 5% of cases."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import record
import tables
from repeatability import artifact_of

import mlpack

MOST_DIFFERENT = 0.05


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=50)
    parser.add_argument("--add", action="store_true", help="to the pairs of the result that there is")
    given = parser.parse_args()
    before = (record.read("identical") if given.add else None) or {"pairs": 0, "called_different": 0.0, "speedups": []}
    ratios, different = list(before["speedups"]), round(before["pairs"] * before["called_different"])
    with tempfile.TemporaryDirectory(prefix="identical-") as folder:
        artifact = str(artifact_of("tiny-mlp", Path(folder)))
        for _ in range(given.pairs):
            done = mlpack.bench([artifact, artifact], batches=[1], data=f"{artifact}/golden/inputs.npz")
            (timed,) = done.contenders[1].latency
            assert timed.speedup is not None
            assert timed.speedup_ci95 is not None
            ratios.append(timed.speedup)
            different += not timed.speedup_ci95[0] <= 1 <= timed.speedup_ci95[1]
            print(f"{len(ratios)}: {timed.speedup:.3f} × {timed.speedup_ci95}", flush=True)
    share = different / len(ratios)
    record.write("identical", {"pairs": len(ratios), "called_different": share, "speedups": ratios})
    tables.render_all()
    print(tables.identical(record.read("identical") or {}))
    return 0 if share <= MOST_DIFFERENT else 1


if __name__ == "__main__":
    sys.exit(main())
