"""Fits the head on Google's emoji and writes weights.safetensors and the held-out images."""

import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
import yaml
from model import CATEGORIES, EmojiClassifier, model, network
from numpy.typing import NDArray
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from mlpack.pipeline.image import ImagePreprocess

FOLDER: Final = Path(__file__).parent
IMAGES: Final = FOLDER / "images"
PACKAGE: Final = "emoji-datasource-google@16.0.0"
PACKAGE_SHA256: Final = "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438"
SEED: Final = 20261122
BATCH_ROWS: Final = 32
DEAD: Final = 1e-4
REGULARIZATIONS: Final = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03)
"""Inverse L2 strengths that cross-validation on the training images chooses from."""


class Emoji(NamedTuple):
    """One image of the package and the category it stands in."""

    path: Path
    category: str


def download(folder: Path) -> Path:
    """Fetches the package with the npm client as it is configured on this machine, and unpacks what is needed."""
    subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    (archive,) = folder.glob("*.tgz")
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != PACKAGE_SHA256:
        raise SystemExit(f"{PACKAGE}: the archive's sha256 is {found}, expected {PACKAGE_SHA256}")
    with tarfile.open(archive) as tar:
        wanted = [each for each in tar if each.name.startswith(("package/emoji.json", "package/img/google/64/"))]
        tar.extractall(folder, wanted, filter="data")
    return folder / "package"


def held_out(codepoint: str) -> bool:
    """Whether an emoji belongs to the quarter that is kept for evaluation."""
    return int(hashlib.md5(codepoint.encode(), usedforsecurity=False).hexdigest(), 16) % 4 == 0


def split(package: Path) -> tuple[list[Emoji], list[Emoji]]:
    """Training and evaluation images of the seven categories, without the variants in other skin tones."""
    sides: tuple[list[Emoji], list[Emoji]] = ([], [])
    for entry in json.loads((package / "emoji.json").read_text(encoding="utf-8")):
        category = entry["category"].lower().replace(" & ", "-")
        if category in CATEGORIES and entry["has_img_google"]:
            emoji = Emoji(package / "img/google/64" / entry["image"], category)
            sides[held_out(entry["unified"])].append(emoji)
    return sides


def numbers(side: list[Emoji]) -> NDArray[np.int64]:
    """The labels of these images."""
    return np.array([CATEGORIES.index(emoji.category) for emoji in side])


def embedded(classifier: EmojiClassifier, side: list[Emoji]) -> Tensor:
    """What the convolutions say of each image: [rows, 1280]."""
    options = yaml.safe_load((FOLDER / "preprocess.yaml").read_text(encoding="utf-8"))
    preprocess = ImagePreprocess(FOLDER, **options)
    made = []
    with torch.inference_mode():
        for start in range(0, len(side), BATCH_ROWS):
            contents = [emoji.path.read_bytes() for emoji in side[start : start + BATCH_ROWS]]
            made.append(classifier.embed(torch.from_numpy(preprocess({"image": contents})["image"])))
    return torch.cat(made)


def fit(embeddings: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, Tensor]:
    """Logistic regression on the embeddings as a layer: weight [7, 1280] and bias [7]."""
    # Features that are always 0 have no scale; their weights stay 0.
    alive = embeddings.std(axis=0) > DEAD
    scaler = StandardScaler().fit(embeddings[:, alive])
    scaled = scaler.transform(embeddings[:, alive]).astype(np.float64)

    def folded_accuracy(strength: float) -> float:
        regression = LogisticRegression(C=strength, max_iter=1000)
        return float(cross_val_score(regression, scaled, labels, cv=5).mean())

    strength = max(REGULARIZATIONS, key=folded_accuracy)
    print(f"C={strength} is best in cross-validation: {folded_accuracy(strength):.2%}", flush=True)
    regression = LogisticRegression(C=strength, max_iter=1000).fit(scaled, labels)
    # The scaling is folded into the layer.
    weight = np.zeros((len(CATEGORIES), embeddings.shape[1]))
    weight[:, alive] = regression.coef_ / scaler.scale_
    bias = regression.intercept_ - weight[:, alive] @ scaler.mean_
    return {"weight": torch.from_numpy(weight).float(), "bias": torch.from_numpy(bias).float()}


def main() -> None:
    """Data, split, fit, files, and the score that the README states."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        training, evaluation = split(download(Path(folder)))
        print(f"read {len(training) + len(evaluation)} emoji of {len(CATEGORIES)} categories", flush=True)
        shutil.rmtree(IMAGES, ignore_errors=True)
        for emoji in evaluation:
            (IMAGES / emoji.category).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(emoji.path, IMAGES / emoji.category / emoji.path.name)
        print(f"wrote images/: {len(evaluation)} held-out images", flush=True)

        embeddings = embedded(network(), training)
        print(f"embedded {len(embeddings)} training images", flush=True)
        save_file(fit(embeddings.numpy(), numbers(training)), FOLDER / "weights.safetensors")
        print("wrote weights.safetensors", flush=True)

        trained = model()
        with torch.inference_mode():
            answers = trained.head(embedded(trained, evaluation)).argmax(1).numpy()
    right = int((answers == numbers(evaluation)).sum())
    print(f"top-1 on images/: {right / len(evaluation):.2%} ({right} of {len(evaluation)})")


if __name__ == "__main__":
    main()
