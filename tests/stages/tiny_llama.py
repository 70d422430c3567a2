"""A Llama small enough to be made anew for each test, with matrices on both sides of what is read for good."""

from __future__ import annotations

from pathlib import Path


def llama(*, tied: bool = False, layers: int = 2, hidden: int = 256, vocab: int = 512, seed: int = 0):
    """Random weights in bfloat16; queries of four heads look at keys of two."""
    import torch
    import transformers

    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=vocab, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=2 * hidden, max_position_embeddings=128, tie_word_embeddings=tied, initializer_range=0.1,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).to(torch.bfloat16).eval()


def save(model, folder, shard: str = "1MB") -> Path:
    """The folder as `save_pretrained` writes it, in files of this size at most."""
    model.save_pretrained(folder, max_shard_size=shard)
    return Path(folder)
