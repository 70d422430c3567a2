"""Trains the tiny perceptron on scikit-learn's digits and writes weights.safetensors, eval.npz and train.npz."""

from pathlib import Path
from typing import Final

import numpy as np
import torch
from model import TinyMlp, model, network
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import Tensor, nn

FOLDER: Final = Path(__file__).parent
SEED: Final = 20261122
HELD_OUT_ROWS: Final = 800
EPOCHS: Final = 60
BATCH_ROWS: Final = 32


def rows() -> tuple[Tensor, Tensor]:
    """All 1,797 digits: features float32 [rows, 64] in 0..1 and labels int64 [rows]."""
    pixels, labels = load_digits(return_X_y=True)
    # Pixels are counts 0..16; sixteenths are exact in float32 (and in float16).
    return torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(labels, dtype=torch.int64)


def train(features: Tensor, labels: Tensor) -> TinyMlp:
    """A fixed number of epochs: nothing is chosen by looking at the held-out rows."""
    trained = network()
    optimizer = torch.optim.AdamW(trained.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    for _ in range(EPOCHS):
        order = torch.randperm(len(labels))
        for start in range(0, len(order), BATCH_ROWS):
            batch = order[start : start + BATCH_ROWS]
            loss = nn.functional.cross_entropy(trained(features[batch]), labels[batch])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
        schedule.step()
    return trained.eval()


def main() -> None:
    """Data, split, training, files, and the score that the README states."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    features, labels = rows()
    print(f"read {len(labels)} digits from scikit-learn")

    order = torch.randperm(len(labels))
    held_out, training = order[:HELD_OUT_ROWS], order[HELD_OUT_ROWS:]
    np.savez_compressed(FOLDER / "eval.npz", features=features[held_out].numpy(), labels=labels[held_out].numpy())
    print(f"wrote eval.npz: {len(held_out)} held-out rows")
    np.savez_compressed(FOLDER / "train.npz", features=features[training].numpy(), labels=labels[training].numpy())
    print(f"wrote train.npz: {len(training)} rows")

    trained = train(features[training], labels[training])
    save_file(trained.state_dict(), FOLDER / "weights.safetensors")
    print(f"trained on {len(training)} rows for {EPOCHS} epochs, wrote weights.safetensors")

    with torch.inference_mode():
        right = int((model()(features[held_out]).argmax(1) == labels[held_out]).sum())
    print(f"top-1 on eval.npz: {right / len(held_out):.2%} ({right} of {len(held_out)})")


if __name__ == "__main__":
    main()
