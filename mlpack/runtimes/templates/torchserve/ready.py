"""Exit code 0 where a worker of TorchServe has loaded the model: /ping wants a token, and is healthy before that."""

from __future__ import annotations

import json
import sys
import urllib.request
from pathlib import Path

KEYS = Path("key_file.json")
MANAGEMENT = "http://127.0.0.1:8081"
SECONDS = 4
PORTS = 2


def main() -> int:
    """Ask the management port about the model of this name; the server's tokens lie in this folder."""
    key = json.loads(KEYS.read_text(encoding="utf-8"))["management"]["key"]
    address = f"{sys.argv[2] if len(sys.argv) > PORTS else MANAGEMENT}/models/{sys.argv[1]}"
    request = urllib.request.Request(address, headers={"Authorization": f"Bearer {key}"})  # noqa: S310 - our own port
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310 - likewise
        (told,) = json.load(answer)
    return 0 if any(worker["status"] == "READY" for worker in told["workers"]) else 1


if __name__ == "__main__":
    sys.exit(main())
