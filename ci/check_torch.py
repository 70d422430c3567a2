"""Stops before anything is downloaded when the torch that pip would take needs CUDA packages."""

from __future__ import annotations

import json
import re
import subprocess
import sys

_CUDA = re.compile(r"^(nvidia|cuda|triton)\b", re.IGNORECASE)


def main() -> int:
    """Ask pip what it would install for torch under the constraints; 3 where CUDA comes along."""
    constraints = sys.argv[1]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--report", "-"]
    found = subprocess.run([*command, "-c", constraints, "torch"], capture_output=True, text=True, check=False)
    if found.returncode != 0:
        sys.stderr.write(found.stderr)
        sys.stderr.write("error: pip finds no torch that constraints.txt allows for this Python\n")
        return 3
    names = [each["metadata"]["name"] for each in json.loads(found.stdout)["install"]]
    cuda = sorted(name for name in names if _CUDA.match(name))
    if cuda:
        sys.stderr.write(
            f"error: pip would take a torch for CUDA, with {', '.join(cuda[:3])} and more: gigabytes, unused here\n"
            "hint: point pip at a folder or an index with the CPU wheel, then again:"
            " export PIP_FIND_LINKS=/folder/with/the/cpu/wheel\n"
        )
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
