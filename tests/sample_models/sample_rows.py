"""The rows that lie beside each sample model, as the arrays that it takes."""

import csv
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from mlpack.pipeline.image import ImagePreprocess
from mlpack.pipeline.text import TextPreprocess

Arrays = dict[str, NDArray[np.generic]]

NOT_INPUTS = {"labels", "cluster", "group"}
TEXTS = {"reviews-bert": "reviews.csv", "words-gru": "words.csv"}


def evaluation(
    folder: Path, classes: tuple[str, ...] = (), tokenizer: Path = Path(), rows: int | None = None
) -> Arrays:
    """Inputs, labels and whatever else is known of the first rows; `classes` in the order of the logits."""
    if folder.name in TEXTS:
        preprocess = TextPreprocess(
            tokenizer.parent,
            tokenizer=tokenizer.name,
            inputs={"input_ids": "ids", "attention_mask": "attention_mask"},
        )
        table = table_of(folder)[:rows]
        arrays = preprocess({"text": [row["text"] for row in table]})
        return {**arrays, "labels": np.array([classes.index(row["label"]) for row in table])}
    if (folder / "images").is_dir():
        paths = sorted((folder / "images").glob("*/*.png"))[:rows]
        options = yaml.safe_load((folder / "preprocess.yaml").read_text())
        arrays = ImagePreprocess(folder, **options)({"image": [path.read_bytes() for path in paths]})
        return {**arrays, "labels": np.array([classes.index(path.parent.name) for path in paths])}
    with np.load(folder / "eval.npz", allow_pickle=False) as stored:
        return {name: stored[name][:rows] for name in stored.files}


def table_of(folder: Path) -> list[dict[str, str]]:
    """The rows of a folder of texts, as they were written."""
    with (folder / TEXTS[folder.name]).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def inputs(arrays: Arrays) -> Arrays:
    return {name: array for name, array in arrays.items() if name not in NOT_INPUTS}
