"""Hugging Face models of every kind, small enough to be made anew, with the architecture of the real ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

_VOCABULARY = """
[PAD] [UNK] [CLS] [SEP] [MASK] the a river flows through paris and london is old new city of light who lives in
where ann bob , . ? ! - ' s ##s ##ing ##ed walk play long un ##believ ##able 1 2 3 é 北 京
"""
WORDS = _VOCABULARY.split()
_SIZES = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "hidden_size": 32}
_TEXT = {**_SIZES, "vocab_size": len(WORDS), "max_position_embeddings": 40}
_DISTIL = {"vocab_size": len(WORDS), "max_position_embeddings": 40, "dim": 32, "n_layers": 2, "n_heads": 2}
_ROBERTA = {**_TEXT, "vocab_size": 330, "max_position_embeddings": 42, "type_vocab_size": 1, "pad_token_id": 1}
TAGS = {0: "O", 1: "B-PER", 2: "B-LOC"}
# name: (class of the model, class of its config, the config's options)
KINDS = {
    "bert": ("BertForSequenceClassification", "BertConfig", {**_TEXT, "num_labels": 3}),
    "distilbert": ("DistilBertForSequenceClassification", "DistilBertConfig", {**_DISTIL, "num_labels": 3}),
    "roberta": ("RobertaForSequenceClassification", "RobertaConfig", {**_ROBERTA, "num_labels": 3}),
    "tagger": ("BertForTokenClassification", "BertConfig", {**_TEXT, "id2label": TAGS}),
    "distilbert_tagger": ("DistilBertForTokenClassification", "DistilBertConfig", {**_DISTIL, "id2label": TAGS}),
    "answers": ("BertForQuestionAnswering", "BertConfig", _TEXT),
    "roberta_answers": ("RobertaForQuestionAnswering", "RobertaConfig", _ROBERTA),
    "encoder": ("BertModel", "BertConfig", _TEXT),
    "distilbert_encoder": ("DistilBertModel", "DistilBertConfig", _DISTIL),
    "vit": (
        "ViTForImageClassification", "ViTConfig", {**_SIZES, "image_size": 32, "patch_size": 8, "num_labels": 3},
    ),
    "resnet": (
        "ResNetForImageClassification", "ResNetConfig",
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic", "num_labels": 3},
    ),
}  # fmt: skip


def make(kind: str, **changes):
    """A model with random weights that do not depend on what was made before."""
    import torch
    import transformers

    model, config, options = KINDS[kind]
    torch.manual_seed(0)
    made = getattr(transformers, model)(getattr(transformers, config)(**{**options, **changes}))
    if kind == "resnet":
        # As they are made, all images are one to the norms' statistics of nothing.
        made.train()
        with torch.no_grad():
            made(pixel_values=torch.randn(8, 3, 32, 32))
            made.eval()
            # And all get one class, whatever they are.
            made.classifier[-1].bias -= made(pixel_values=torch.randn(64, 3, 32, 32)).logits.mean(0)
    return made.eval()


def rows(kind: str, count: int, length: int = 12, seed: int = 0) -> dict[str, np.ndarray]:
    """Inputs as `--data` has them; the rows end at different places."""
    random = np.random.default_rng(seed)
    if kind in {"vit", "resnet"}:
        return {"pixel_values": random.standard_normal((count, 3, 32, 32)).astype(np.float32)}
    padding = 1 if kind.startswith("roberta") else 0
    ids = random.integers(5, len(WORDS), (count, length))
    mask = (np.arange(length) < random.integers(2, length + 1, (count, 1))).astype(np.int64)
    made = {"input_ids": np.where(mask, ids, padding), "attention_mask": mask}
    if not kind.startswith(("roberta", "distilbert")):
        made["token_type_ids"] = np.where(mask, (np.arange(length) >= length // 2).astype(np.int64), 0)
    return made


def answers(model, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the model itself answers, eagerly."""
    import torch

    with torch.inference_mode():
        found = model(**{name: torch.from_numpy(array) for name, array in inputs.items()})
    return {name: array.numpy() for name, array in found.items()}


def word_pieces(folder: Path, **config) -> Path:
    """A BERT tokenizer beside a model, as `save_pretrained` writes it."""
    from transformers import BertTokenizerFast

    made = BertTokenizerFast(vocab={word: at for at, word in enumerate(WORDS)}, **{"model_max_length": 30, **config})
    made.save_pretrained(folder)
    return Path(folder)


def byte_pairs(folder: Path, **config) -> Path:
    """A RoBERTa tokenizer beside a model: byte pairs learnt on the words above."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import RobertaTokenizerFast

    learnt = Tokenizer(models.BPE())
    learnt.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learnt.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    learnt.train_from_iterator([" ".join(WORDS)] * 3, trainer)
    content = json.loads(learnt.to_str())["model"]
    made = RobertaTokenizerFast(
        vocab=content["vocab"], merges=[tuple(each) for each in content["merges"]],
        **{"model_max_length": 512, **config},
    )  # fmt: skip
    made.save_pretrained(folder)
    return Path(folder)
