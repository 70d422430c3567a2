"""BERT-base with random weights, and 128 random tokens with a mask: the shapes that others publish speeds of."""

from collections.abc import Iterator

import numpy as np
import torch
from transformers.models.bert.configuration_bert import BertConfig
from transformers.models.bert.modeling_bert import BertModel

SAMPLES, BATCH, TOKENS = 160, 16, 128


class BertBase(torch.nn.Module):
    """Ids and mask in, the last hidden state out."""

    def __init__(self) -> None:
        super().__init__()
        self.network = BertModel(BertConfig(), add_pooling_layer=False)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Hidden states [batch, 128, 768] of ids and mask [batch, 128]."""
        hidden: torch.Tensor = self.network(input_ids=ids, attention_mask=mask).last_hidden_state
        return hidden


def model() -> torch.nn.Module:
    """The same weights each time."""
    torch.manual_seed(0)
    return BertBase().eval()


def data() -> Iterator[tuple[dict[str, np.ndarray], None]]:
    """Ids and masks [batch, 128]; a mask ends after 32 to 128 tokens."""
    draw = np.random.default_rng(0)
    for _ in range(0, SAMPLES, BATCH):
        ids = draw.integers(1000, 30000, (BATCH, TOKENS))
        mask = (np.arange(TOKENS) < draw.integers(32, TOKENS + 1, (BATCH, 1))).astype(np.int64)
        yield {"ids": ids, "mask": mask}, None
