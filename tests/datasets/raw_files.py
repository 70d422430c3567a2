"""Small raw data for tests: texts in tables, images in folders, and a pipeline that prepares them."""

from __future__ import annotations

import csv
import json

import numpy as np
import yaml

from mlpack.core.dataset import RawOptions

WORDS = ("good", "bad", "fine", "poor", "film", "plot", "very", "not", "long", "short")


def tokenizer(folder):
    """A word tokenizer whose tokenizer.json lies in the folder."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    folder.mkdir(parents=True, exist_ok=True)
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS]
    made = Tokenizer(models.WordLevel({name: at for at, name in enumerate(names)}, unk_token="[UNK]"))
    made.add_special_tokens(names[:4])
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.save(str(folder / "tokenizer.json"))
    return folder


def texts(count, seed=0, longest=60):
    """Texts of 1 to `longest` words, and a label each: whether "good" is in it more often than "bad"."""
    random = np.random.default_rng(seed)
    made = []
    for at in range(count):
        words = [WORDS[each] for each in random.integers(0, len(WORDS), random.integers(1, longest + 1))]
        made.append(
            {"text": f"{' '.join(words)} {at}", "label": "up" if words.count("good") > words.count("bad") else "down"}
        )
    return made


def write_table(path, rows):
    """The rows as `.csv`, `.tsv`, `.jsonl` or `.parquet`."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet

        pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


def images(folder, count=24, size=20, seed=0):
    """Noise images, brighter in the class `light` than in `dark`."""
    from PIL import Image

    random = np.random.default_rng(seed)
    for at in range(count):
        name = "light" if at % 2 else "dark"
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 120, (size, size, 3)) + (130 if name == "light" else 0)
        Image.fromarray(pixels.astype(np.uint8)).save(place / f"{at:03}.png")
    return folder


def text_pipeline(folder, labels=("down", "up"), **options):
    """The options of raw data whose pipeline has a word tokenizer."""
    tokenizer(folder)
    before = {
        "kind": "text", "tokenizer": "tokenizer.json",
        "inputs": {"input_ids": "ids", "attention_mask": "attention_mask"}, **options,
    }  # fmt: skip
    (folder / "pipeline.yaml").write_text(yaml.safe_dump({"schema": 1, "labels": list(labels), "preprocess": before}))
    return RawOptions(pipeline=str(folder))


def image_pipeline(folder, labels=("dark", "light"), **options):
    """The options of raw data whose pipeline resizes images to 16 x 16."""
    folder.mkdir(parents=True, exist_ok=True)
    before = {"kind": "image", "resize": [16, 16], **options}
    (folder / "pipeline.yaml").write_text(yaml.safe_dump({"schema": 1, "labels": list(labels), "preprocess": before}))
    return RawOptions(pipeline=str(folder))
