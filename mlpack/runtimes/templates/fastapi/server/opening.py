"""Opens a package's models, each warm before the first request comes."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import numpy as np

from .environment import ONLY_FALLBACK
from .sessions import Model, ModelFailed, Session, open_session

if TYPE_CHECKING:
    from pathlib import Path

    from .description import Description


def open_model(package: Path, description: Description) -> Model:
    """What one worker runs. Where there is a fallback, it is enough that this one can be opened.

    Raises:
        ModelFailed: nothing is left that could answer.
    """
    if description.fallback is None:
        return Model(_warm_session(package, description))
    spare = _warm_session(package, description.fallback)
    if os.environ.get(ONLY_FALLBACK):
        return Model(None, spare)
    try:
        return Model(_warm_session(package, description), spare)
    except ModelFailed as error:
        sys.stderr.write(f"warning: the model cannot be opened, its fallback answers: {error}\n")
        return Model(None, spare)


def _warm_session(package: Path, description: Description) -> Session:
    """Run the first golden sample, so that the first request does not pay for lazy initialisation."""
    session = open_session(package, description)
    rows = json.loads((package / "golden" / "golden.json").read_text())["rows_per_request"]
    with np.load(package / "golden" / "inputs.npz") as arrays:
        session({name: arrays[name][:rows] for name in arrays.files})
    return session
