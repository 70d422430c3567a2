"""Trains the network of two digits on scikit-learn's images and writes weights.safetensors and eval.npz."""

from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from model import DigitsPairs, model, network
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import Tensor, nn

FOLDER: Final = Path(__file__).parent
SEED: Final = 20261122
HELD_OUT_IMAGES: Final = 800
STEPS: Final = 3000
BATCH_ROWS: Final = 128
PEAK_LEARNING_RATE: Final = 3e-3


class Pairs(NamedTuple):
    """Places of images and, for the evaluation rows, the four images that a row was drawn from: int64 [rows]."""

    left: Tensor
    right: Tensor
    cluster: Tensor


def rows() -> tuple[Tensor, Tensor]:
    """All 1,797 digits: images float32 [rows, 1, 8, 8] in 0..1 and labels int64 [rows]."""
    pixels, labels = load_digits(return_X_y=True)
    # Pixels are counts 0..16; sixteenths are exact in float32 (and in float16).
    return torch.tensor(pixels / 16, dtype=torch.float32).reshape(-1, 1, 8, 8), torch.tensor(labels)


def held_out_pairs(images: Tensor, labels: Tensor) -> Pairs:
    """All six pairs inside each set of four images, in a seeded order.

    No image is in two sets, so sets are what may be resampled. Each is made of two twins, so that about a third
    of the pairs show one digit.
    """
    twins = images[labels[images].argsort(stable=True)].reshape(-1, 2)
    fours = twins[torch.randperm(len(twins))].reshape(-1, 4)
    first, second = torch.triu_indices(4, 4, 1)
    cluster = torch.arange(len(fours))[:, None].expand(-1, len(first))
    pairs = Pairs(fours[:, first].flatten(), fours[:, second].flatten(), cluster.flatten())
    order = torch.randperm(len(pairs.left))
    return Pairs(*(column[order] for column in pairs))


def training_pairs(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Places of a batch of pairs, a third of them of one digit."""
    left = images[torch.randint(len(images), (BATCH_ROWS,))]
    right = images[torch.randint(len(images), (BATCH_ROWS,))]
    for row in range(BATCH_ROWS // 4):
        alike = images[labels[images] == labels[left[row]]]
        right[row] = alike[torch.randint(len(alike), ())]
    return left, right


def train(images: Tensor, labels: Tensor, training: Tensor) -> DigitsPairs:
    """A fixed number of steps: nothing is chosen by looking at the held-out images."""
    trained = network()
    optimizer = torch.optim.AdamW(trained.parameters(), lr=PEAK_LEARNING_RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, total_steps=STEPS)
    for _ in range(STEPS):
        left, right = training_pairs(training, labels)
        logits = trained(images[left], images[right])
        loss = nn.functional.cross_entropy(logits["sum"], labels[left] + labels[right])
        loss = loss + nn.functional.cross_entropy(logits["same"], (labels[left] == labels[right]).long())
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
    return trained.eval()


def main() -> None:
    """Data, split, training, files, and the scores that the README states."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    images, labels = rows()
    print(f"read {len(labels)} digits from scikit-learn")

    order = torch.randperm(len(labels))
    held_out, training = order[:HELD_OUT_IMAGES], order[HELD_OUT_IMAGES:]
    pairs = held_out_pairs(held_out, labels)
    sums = labels[pairs.left] + labels[pairs.right]
    same = (labels[pairs.left] == labels[pairs.right]).long()
    np.savez_compressed(
        FOLDER / "eval.npz",
        left=images[pairs.left].numpy(),
        right=images[pairs.right].numpy(),
        labels=sums.numpy(),
        group=same.numpy(),
        cluster=pairs.cluster.numpy(),
    )
    print(f"wrote eval.npz: {len(sums)} pairs of {len(held_out)} held-out images", flush=True)

    trained = train(images, labels, training)
    save_file(trained.state_dict(), FOLDER / "weights.safetensors")
    print(f"trained on pairs of {len(training)} images for {STEPS} steps, wrote weights.safetensors")

    with torch.inference_mode():
        logits = model()(images[pairs.left], images[pairs.right])
    for name, truth in (("sum", sums), ("same", same)):
        right = int((logits[name].argmax(1) == truth).sum())
        print(f"top-1 of {name} on eval.npz: {right / len(truth):.2%} ({right} of {len(truth)})")


if __name__ == "__main__":
    main()
