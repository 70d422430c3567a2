"""Where data that had to be unpacked is kept."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """`MLPACK_CACHE`, else the user's cache folder for mlpack."""
    import platformdirs

    named = os.environ.get("MLPACK_CACHE")
    return Path(named).expanduser() if named else Path(platformdirs.user_cache_dir("mlpack"))
