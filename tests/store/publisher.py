"""Publishes from a process of its own: `python publisher.py STORE DRAFT TIMES`."""

from __future__ import annotations

import sys
from pathlib import Path

from sample_artifact import make_artifact, make_draft

from mlpack.store.publish import publish

store, draft, times = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
make_draft(draft)
print("ready", flush=True)
sys.stdin.readline()
for _ in range(times):
    stored = publish(store, draft, make_artifact())
    print(stored.artifact.version, flush=True)
