"""A BERT classifier small enough to be made anew for each test, with the architecture of the real ones."""

from __future__ import annotations

from pathlib import Path


def bert(labels: int = 3):
    """Two layers of width 32, random weights, three labels."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64, num_labels=labels,
    )  # fmt: skip
    return transformers.BertForSequenceClassification(config).eval()


def save(model, folder) -> Path:
    """The folder as `save_pretrained` writes it."""
    model.save_pretrained(folder)
    return Path(folder)
