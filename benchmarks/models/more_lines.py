"""Lines to train digit-lines on, without labels: drawn as its own were, from the digits that it was trained on."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

MODELS = Path(__file__).resolve().parents[2] / "sample_models"
LINES = 6000


def write(file: Path) -> None:
    """Write `image` float32 [6000, 1, 24, 144]; the same for a seed."""
    sys.path.insert(0, str(MODELS / "digit-lines"))
    from build import LONGEST, SHORTEST, lines, varied

    torch.manual_seed(0)
    with np.load(MODELS / "digits-resnet" / "train.npz") as digits:
        images = torch.from_numpy(digits["image"][:, 0])
    counts = torch.randint(SHORTEST, LONGEST + 1, (LINES,))
    places = torch.randint(len(images), (int(counts.sum()),))
    np.savez(file, image=lines(varied(images[places]), counts.tolist()).numpy())


if __name__ == "__main__":
    write(Path(sys.argv[1]))
