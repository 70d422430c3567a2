"""A tokenizer, and the pipeline of a model of single tokens around it."""

from __future__ import annotations

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from mlpack.pipeline import Pipeline

_VOCABULARY = "[PAD] [UNK] [CLS] [SEP] anna lives in par ##is ##s near the old london ##er , . - 3 3 ##é"
WORDS = _VOCABULARY.split()
INPUTS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}


def write_tokenizer(folder):
    vocabulary = {word: at for at, word in enumerate(dict.fromkeys(WORDS))}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.save(str(folder / "tokenizer.json"))


def pipeline(folder, postprocess, **before):
    write_tokenizer(folder)
    text = {"kind": "text", "tokenizer": "tokenizer.json", "inputs": INPUTS, "max_length": 24, **before}
    return Pipeline({"schema": 1, "preprocess": text, "postprocess": postprocess}, folder)
