"""What a Hugging Face folder says about before and after its model, as the document of a pipeline.

Tokenizer, image processor and label names lie beside the weights; what they say becomes options of the pipeline's own
steps, which need no transformers to run.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from mlpack.core.filesystem import write_atomic
from mlpack.errors import ModelError
from mlpack.sources.hf_folder import CONFIG, most_tokens, read_config, usual_inputs
from mlpack.sources.hf_images import PROCESSOR, image_step

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

TOKENIZER = "tokenizer.json"
_TOKENIZER_CONFIG = "tokenizer_config.json"
_SPECIAL_TOKENS = "special_tokens_map.json"
# What tokenizers were kept in before there was tokenizer.json; transformers turns them into one.
_OLDER = ("vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model", "spm.model", "tokenizer.model")
# From this on a tokenizer's limit means "none": transformers writes 10 ** 30.
_NO_LIMIT = 10**9
_SOURCES = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
_PADS = ("[PAD]", "<pad>")
_SPELLED_OUT = "give what comes before the model yourself: --preprocess file.py:function"


def pipeline_of(folder: Path, work: Path) -> tuple[dict[str, Any], dict[str, Path]]:
    """The document of `pipeline.yaml`, and the files that belong beside it by their names there.

    A side that the folder says nothing about is missing in the document. `work` is a folder to write a tokenizer
    in, where the one that is there has to be converted first.

    Raises:
        ModelError: the folder's files are damaged, or ask for steps that a pipeline does not have.
    """
    config = read_config(folder, str(folder))
    document: dict[str, Any] = {"schema": 1}
    files: dict[str, Path] = {}
    inputs = [each.partition("=")[0] for each in usual_inputs(config)]
    if inputs == ["pixel_values"]:
        if (folder / PROCESSOR).is_file():
            document["preprocess"] = image_step(read_json(folder / PROCESSOR), config, folder)
    elif inputs and (tokenizer := _tokenizer(folder, work)) is not None:
        files[TOKENIZER] = tokenizer
        document["preprocess"] = text_step(folder, config, tokenizer, inputs)
    after = _after(config, texts=bool(files))
    if after is not None:
        document["postprocess"] = after
    return document, files


def without_before(folder: Path) -> dict[str, Any]:
    """The document of a folder whose preprocess is said by somebody else, or cannot be followed.

    Raises:
        ModelError: config.json is damaged.
    """
    after = _after(read_config(folder, str(folder)), texts=False)
    return {"schema": 1} if after is None else {"schema": 1, "postprocess": after}


def read_json(path: Path) -> dict[str, Any]:
    """An object from a JSON file of a folder.

    Raises:
        ModelError: it is none.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}", "copy or download the folder again") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path} holds no object", "copy or download the folder again")
    return found


def _tokenizer(folder: Path, work: Path) -> Path | None:
    """A tokenizer.json that does what transformers would do; None where the folder has no tokenizer."""
    config = _tokenizer_config(folder)
    given = folder / TOKENIZER
    if not given.is_file():
        if not any((folder / name).is_file() for name in _OLDER):
            return None
        return _written(_converted(folder, config), work)
    content = read_json(given)
    normalizer = content.get("normalizer")
    if not isinstance(normalizer, dict) or normalizer.get("type") != "BertNormalizer":
        return given
    # transformers makes this normalizer anew from what tokenizer_config.json says, whatever the other file has.
    options = {"lowercase": "do_lower_case", "strip_accents": "strip_accents"}
    options["handle_chinese_chars"] = "tokenize_chinese_chars"
    told = {own: config[theirs] for own, theirs in options.items() if theirs in config}
    if all(normalizer.get(name) == value for name, value in told.items()):
        return given
    return _written(json.dumps({**content, "normalizer": {**normalizer, **told}}), work)


def _written(tokenizer: str, work: Path) -> Path:
    """A file of this content, under a name that no other content has: several runs may work in one folder."""
    path = work / f"tokenizer-{hashlib.sha256(tokenizer.encode()).hexdigest()[:16]}.json"
    write_atomic(path, tokenizer)
    return path


def _tokenizer_config(folder: Path) -> dict[str, Any]:
    """What the two files beside a tokenizer say together; refuses what a pipeline would do otherwise."""
    found: dict[str, Any] = {}
    for name in (_SPECIAL_TOKENS, _TOKENIZER_CONFIG):
        if (folder / name).is_file():
            found |= read_json(folder / name)
    for side, done in (("padding_side", "pads"), ("truncation_side", "cuts")):
        if found.get(side) == "left":
            raise ModelError(f"the tokenizer of {folder} {done} on the left, which pipelines do not", _SPELLED_OUT)
    return found


def _converted(folder: Path, config: dict[str, Any]) -> str:
    """What transformers makes of a tokenizer in an older form."""
    hint = "save it again: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
    if config.get("auto_map"):
        raise ModelError(f"the tokenizer of {folder} needs code of its own, which is not run", _SPELLED_OUT)
    import transformers

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        made = str(tokenizer.backend_tokenizer.to_str())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, RuntimeError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ModelError(
            f"{folder} has a tokenizer in an older form, and transformers cannot convert it: {reason}", hint
        ) from error
    return made


def text_step(folder: Path, config: dict[str, Any], tokenizer: Path, inputs: Sequence[str]) -> dict[str, Any]:
    """The text step of a folder with this tokenizer, for a model that takes these of a tokenizer's arrays.

    Raises:
        ModelError: the folder's files are damaged, or ask for what a pipeline does not do.
    """
    told = _tokenizer_config(folder)
    content = read_json(tokenizer)
    _check_size(content, config, tokenizer)
    padding, truncation = (content.get(side) or {} for side in ("padding", "truncation"))
    token = _token(told.get("pad_token")) or _token(padding.get("pad_token"))
    token = token or next((each for each in _PADS if _number(each, content) is not None), None)
    number = _number(token, content) if token else None
    if number is None:
        # A model that was trained one text at a time has no padding token: what the mask hides may be anything.
        number = int(config.get("pad_token_id") or 0)
    limits = [told.get("model_max_length"), most_tokens(config) or config.get("max_position_embeddings")]
    known = [int(each) for each in limits if isinstance(each, int | float) and 0 < each < _NO_LIMIT]
    known = known or [int(each) for each in [truncation.get("max_length")] if each]
    step: dict[str, Any] = {
        "kind": "text",
        "tokenizer": TOKENIZER,
        "inputs": {name: _SOURCES[name] for name in inputs if name in _SOURCES},
        "pad_id": number,
        "pad_type_id": int(told.get("pad_token_type_id") or 0),
    }
    if known:
        step["max_length"] = min(known)
    if _architecture(config).endswith("ForQuestionAnswering"):
        step["fields"] = ["question", "context"]
    return step


def _check_size(content: dict[str, Any], config: dict[str, Any], tokenizer: Path) -> None:
    vocabulary = (content.get("model") or {}).get("vocab") or ()
    known = vocabulary.values() if isinstance(vocabulary, dict) else range(len(vocabulary))
    # Tokens that were added and never trained may lie beyond the embedding: no text has them by chance.
    highest = max(known, default=-1)
    size = config.get("vocab_size")
    if isinstance(size, int) and highest >= size:
        raise ModelError(
            f"{tokenizer} does not fit the model: it has token ids up to {highest}, the model knows {size}",
            "give the tokenizer that the model was trained with: --tokenizer FOLDER",
        )


def _token(told: Any) -> str | None:
    """A special token, which is a text or an object with one."""
    content = told.get("content") if isinstance(told, dict) else told
    return content if isinstance(content, str) else None


def _number(token: str, tokenizer: dict[str, Any]) -> int | None:
    """The id of a token in tokenizer.json."""
    for added in tokenizer.get("added_tokens") or ():
        if added.get("content") == token:
            return int(added["id"])
    vocabulary = (tokenizer.get("model") or {}).get("vocab")
    if isinstance(vocabulary, dict):
        found = vocabulary.get(token)
        return None if found is None else int(found)
    # A unigram model keeps pairs of a piece and its score, in the order of their ids.
    return next((at for at, pair in enumerate(vocabulary or ()) if pair[0] == token), None)


def _architecture(config: dict[str, Any]) -> str:
    return str(next(iter(config.get("architectures") or ()), ""))


def _after(config: dict[str, Any], *, texts: bool) -> dict[str, Any] | None:
    """What makes answers of the model's outputs; None where they are numbers, or where tags have no tokens."""
    architecture = _architecture(config)
    if architecture.endswith("ForQuestionAnswering"):
        return {"kind": "spans"} if texts else None
    if architecture.endswith("ForTokenClassification"):
        return {"kind": "tags", "output": "logits", "labels": labels_of(config)} if texts else None
    if "ForSequenceClassification" not in architecture and "ForImageClassification" not in architecture:
        return None
    labels = labels_of(config)
    if len(labels) < 2 or config.get("problem_type") == "regression":  # noqa: PLR2004 - one number is no choice
        return None
    several = config.get("problem_type") == "multi_label_classification"
    return {
        "kind": "labels",
        "output": "logits",
        "labels": labels,
        "activation": "sigmoid" if several else "softmax",
    }


def labels_of(config: dict[str, Any]) -> list[str]:
    """The names of the classes in the order of their numbers.

    Raises:
        ModelError: the numbers are not 0, 1, 2 …
    """
    named = config.get("id2label")
    if not named:
        # transformers writes them down only where they are not these.
        return [f"LABEL_{number}" for number in range(int(config.get("num_labels") or 2))]
    try:
        by_number = {int(number): str(label) for number, label in named.items()}
    except (ValueError, AttributeError) as error:
        raise ModelError(
            f"id2label of {CONFIG} is damaged: {error}", "number the labels from 0: {'0': 'no'}"
        ) from error
    if sorted(by_number) != list(range(len(by_number))):
        raise ModelError(f"id2label of {CONFIG} does not number its labels from 0", "number the labels from 0")
    return [by_number[number] for number in range(len(by_number))]
