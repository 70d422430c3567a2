"""A GRU over the characters of a name: which language is it in? As many steps as there are characters."""

import json
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn

FOLDER = Path(__file__).parent
WEIGHTS = FOLDER / "weights.safetensors"
TOKENIZER = FOLDER / "tokenizer" / "tokenizer.json"
LANGUAGES = (
    "Czech", "Danish", "Dutch", "English", "Finnish", "French", "German", "Hungarian",
    "Italian", "Polish", "Portuguese", "Romanian", "Spanish", "Swedish", "Turkish",
)  # fmt: skip
"""In the order of the logits."""


class WordsGru(nn.Module):
    """Embedding -> GRU -> mean over the real characters -> linear layer with one output per language."""

    def __init__(self, characters: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, 32, padding_idx=0)
        # One direction: the states of real characters never see the padding after them.
        self.gru = nn.GRU(32, 128, batch_first=True)
        self.head = nn.Linear(128, len(LANGUAGES))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Both int64 [batch, length], each row of the mask with at least one 1, and all of them first.

        Gives logits [batch, 15].
        """
        states: Tensor = self.gru(self.embedding(input_ids))[0]
        weight = attention_mask[:, :, None].to(states.dtype)
        logits: Tensor = self.head((states * weight).sum(1) / weight.sum(1))
        return logits


def network() -> WordsGru:
    """The architecture alone, with random weights: what a state dict is loaded into."""
    return WordsGru(len(json.loads(TOKENIZER.read_text(encoding="utf-8"))["model"]["vocab"]))


def model() -> nn.Module:
    """The trained network in eval mode."""
    trained = network()
    trained.load_state_dict(load_file(WEIGHTS))
    return trained.eval()
