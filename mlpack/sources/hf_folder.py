"""A Hugging Face folder: config.json says the architecture, safetensors hold the weights; transformers reads both.

Nothing is fetched: hubs are never asked, and code that a folder brings along is never run.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import struct
from typing import TYPE_CHECKING, Any

from mlpack.core.loader import Loader
from mlpack.core.memory import usable_memory_bytes
from mlpack.core.model import sha256_of
from mlpack.errors import MissingLibrary, ModelError
from mlpack.sources.hf_images import PROCESSOR, processed_size
from mlpack.sources.safetensors_header import data_start, read_safetensors_header
from mlpack.sources.source import Detected
from mlpack.sources.taking import copy_in

if TYPE_CHECKING:
    from pathlib import Path

    from mlpack.core.recipe import SourceSpec, Weights
    from mlpack.sources.source import Source

CONFIG = "config.json"
KEPT_IN = "hf"
_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}
# Architectures that read one text and write another, one token at a time: two models and a loop around one of them.
_GENERATIVE = ("ForConditionalGeneration", "ForSpeechSeq2Seq", "ForSeq2SeqLM")
# What these answer with is the logits of every token of a text.
CAUSAL = ("ForCausalLM", "LMHeadModel")
# A run in memory holds the weights about three times: the module's, a runtime's, and what its kernels pack of them.
_TIMES_HELD = 3
_NO_HEADER = (
    struct.error, ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError,
    MemoryError,
)  # fmt: skip
_FLOAT32_BYTES = 4
_USUAL_SIDE = 224
_SAVE = "model.save_pretrained(FOLDER)"
_ON_DISK = "its weights are read from the disk as they are needed: they never lie in memory together, and it is slow"
# Architectures whose positions are a table that was learned: a text cannot be longer than the table.
_COUNTED = {
    "albert", "bert", "big_bird", "convbert", "deberta", "distilbert", "electra", "ernie", "funnel", "layoutlm",
    "mobilebert", "roc_bert", "rembert", "squeezebert", "xlm",
}  # fmt: skip
# Theirs are counted from behind the number of the padding token, so that much of the table is never used.
_COUNTED_AFTER_PADDING = {
    "camembert", "data2vec-text", "ibert", "lilt", "longformer", "luke", "mpnet", "roberta", "roberta-prelayernorm",
    "xlm-roberta", "xlm-roberta-xl", "xmod",
}  # fmt: skip


def detect_folder(folder: Path, spec: SourceSpec) -> Detected:
    """What a folder with a config.json is; reads JSON alone.

    Raises:
        ModelError: it cannot be used, or says too little; the hint has what to do.
        MissingLibrary: transformers is not installed.
    """
    given = spec.model
    if spec.factory is not None:
        raise ModelError(
            f"{given} is a whole model (a Hugging Face folder): it needs no factory", "leave --factory out"
        )
    config = read_config(folder, given)
    _refuse(config, given)
    files = [folder / CONFIG, *_weights(folder, given)]
    check_whole(files, given)
    if _any_size(config) and (folder / PROCESSOR).is_file():
        files.append(folder / PROCESSOR)
    if importlib.util.find_spec("transformers") is None:
        raise MissingLibrary(f"{given} is a Hugging Face folder: transformers reads those", "pip install transformers")
    content = json.dumps([[file.name, sha256_of(file)] for file in files])
    return Detected(
        kind="hf_folder",
        container="hf",
        sha256=hashlib.sha256(content.encode()).hexdigest(),
        path=folder.resolve(),
    )


def read_config(folder: Path, given: str) -> dict[str, Any]:
    """The folder's config.json.

    Raises:
        ModelError: it is no JSON, or no model's.
    """
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{given}/{CONFIG} cannot be read: {error}", f"save it again: {_SAVE}") from error
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise ModelError(f"{given}/{CONFIG} says no model_type", f"save the model again: {_SAVE}")
    return config


def _refuse(config: dict[str, Any], given: str) -> None:
    if config.get("auto_map"):
        raise ModelError(
            f"{given} needs code of its own (auto_map in {CONFIG}), which is not run",
            "write a factory that loads it: mlpack optimize file.py:function",
        )
    architecture = next(iter(config.get("architectures") or ()), "")
    if str(architecture).endswith(_GENERATIVE):
        raise ModelError(
            f"{given} is a {architecture}: models that write one text for another come with a later version",
            "encoders, classifiers, taggers, question answering, embeddings, language models and image models can be "
            "optimized",
        )
    if config.get("quantization_config"):
        raise ModelError(f"{given} is quantized already ({CONFIG})", "give the model that it was quantized from")


def _weights(folder: Path, given: str) -> list[Path]:
    """The files that hold the weights, the index of several among them."""
    if (folder / _WEIGHTS).is_file():
        return [folder / _WEIGHTS]
    index = folder / _INDEX
    if index.is_file():
        return [index, *_shards(index, given)]
    pickled = next((name for name in _PICKLED if (folder / name).is_file()), None)
    if pickled is not None:
        raise ModelError(
            f"{given} has its weights in a pickle ({pickled}) alone, which may run code as it is read",
            f"if you trust it, save it as safetensors: AutoModel.from_pretrained({given!r}) and {_SAVE}",
        )
    raise ModelError(f"{given} has a {CONFIG} but no weights ({_WEIGHTS})", f"save the model again: {_SAVE}")


def _shards(index: Path, given: str) -> list[Path]:
    try:
        names = sorted(set(weight_map(index).values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(f"{given}/{_INDEX} is damaged", f"save the model again: {_SAVE}") from error
    files = []
    for name in names:
        # A name with a folder in it would reach out of this one.
        if not isinstance(name, str) or "/" in name or "\\" in name or not (index.parent / name).is_file():
            raise ModelError(f"{given}/{_INDEX} names a file that is not there: {name!r}", "copy or download it again")
        files.append(index.parent / name)
    return files


def weight_map(index: Path) -> dict[str, str]:
    """The file of each tensor, as the index of several files has it."""
    found: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    return found


def check_whole(files: list[Path], given: str) -> None:
    """Whether each file of weights is as long as it says, and holds the tensors that an index looks for in it.

    Raises:
        ModelError: one is cut off or lacks a tensor.
    """
    hint = "copy or download it again"
    for file in files:
        if file.suffix != ".safetensors":
            continue
        try:
            header = read_safetensors_header(file)
            end = max((int(tensor["data_offsets"][1]) for tensor in header.values()), default=0)
        except _NO_HEADER as error:
            raise ModelError(f"{given}/{file.name} is no safetensors file, or is cut off", hint) from error
        missing = data_start(file) + end - file.stat().st_size
        if missing > 0:
            raise ModelError(f"{given}/{file.name} ends too early: {missing:,} bytes are missing", hint)
        index = file.with_name(_INDEX)
        if index in files:
            lost = [name for name, at in weight_map(index).items() if at == file.name and name not in header]
            if lost:
                raise ModelError(f"{given}/{file.name} lacks {lost[0]!r}, which {_INDEX} looks for there", hint)


def _stays_on_disk(files: list[Path], wanted: Weights) -> bool:
    """Whether the weights are read as they are needed: asked for, or too many for the memory in float32."""
    if wanted != "auto":
        return wanted == "disk"
    headers = [read_safetensors_header(file) for file in files if file.suffix == ".safetensors"]
    count = sum(math.prod(tensor["shape"]) for header in headers for tensor in header.values())
    return bool(count * _FLOAT32_BYTES * _TIMES_HELD > usable_memory_bytes())


class _HfFolder:
    def write(self, detected: Detected, spec: SourceSpec, out: Path) -> None:
        """Take config and weights over, and say what usually goes in."""
        import transformers

        folder = detected.file
        for file in (folder / CONFIG, *_weights(folder, spec.model)):
            copy_in(file, out / KEPT_IN / file.name)
        config = read_config(folder, spec.model)
        on_disk = _stays_on_disk(_weights(folder, spec.model), spec.weights)
        Loader(
            kind="hf_folder",
            sha256=detected.sha256,
            archive=KEPT_IN,
            on_disk=on_disk,
            usual=usual_inputs(config),
            fixed=_fixed_sizes(config, folder),
            largest=largest_sizes(config),
            unwrapped=(*_notes(folder, config), *([_ON_DISK] if on_disk else [])),
            library=f"transformers {transformers.__version__}",
        ).write(out)


def _notes(folder: Path, config: dict[str, Any]) -> list[str]:
    """What a reader should know of how the folder is read."""
    pickles = sorted(each.name for each in folder.iterdir() if each.suffix in _PICKLES)
    notes = []
    if is_causal(config):
        notes.append(
            "it answers with the logits of every token of a text; a loop that writes text, and its cache, are not made"
        )
    if pickles:
        are = "is" if len(pickles) == 1 else "are"
        notes.append(f"{', '.join(pickles)} {are} not read, as pickles may run code: the weights are the safetensors")
    dtype = config.get("dtype") or config.get("torch_dtype")
    if dtype in {"float16", "bfloat16"}:
        notes.append(f"the weights are {dtype}: widened to float32, which the numerics flags narrow again")
    return notes


def is_causal(config: dict[str, Any]) -> bool:
    """Whether it is a model that says of each token of a text what comes next."""
    return str(next(iter(config.get("architectures") or ()), "")).endswith(CAUSAL)


def usual_inputs(config: dict[str, Any]) -> tuple[str, ...]:
    """What goes into a model of this kind, as `--input` has it; nothing where the config does not tell.

    Text: token ids and mask, both of any length. Images: pixels, of the size that the config names; a `height` and
    `width` where it does not, as convolutions alone take any.
    """
    vision = config.get("vision_config") is None and ("image_size" in config or "num_channels" in config)
    if vision:
        size = config.get("image_size") or ("height", "width")
        height, width = (size, size) if isinstance(size, int) else size
        return (f"pixel_values=float32:batch,{config.get('num_channels', 3)},{height},{width}",)
    if "vocab_size" not in config:
        return ()
    names = ["input_ids", "attention_mask"]
    if int(config.get("type_vocab_size") or 0) > 1:
        names.append("token_type_ids")
    return tuple(f"{name}=int64:batch,length" for name in names)


def _any_size(config: dict[str, Any]) -> bool:
    return any("height" in each for each in usual_inputs(config))


def _fixed_sizes(config: dict[str, Any], folder: Path) -> dict[str, int]:
    """How large images are that may be of any size: as the folder's processor makes them."""
    if not _any_size(config):
        return {}
    height, width = processed_size(folder, config) or (_USUAL_SIDE, _USUAL_SIDE)
    return {"height": height, "width": width}


def most_tokens(config: dict[str, Any]) -> int | None:
    """The most tokens that a text may have; None where the config does not tell, or positions are not counted."""
    kind, table = config.get("model_type"), config.get("max_position_embeddings")
    if not isinstance(table, int) or kind not in _COUNTED | _COUNTED_AFTER_PADDING:
        return None
    if kind in _COUNTED:
        return table
    padding = config.get("pad_token_id")
    return table - ((padding if isinstance(padding, int) else 1) + 1)


def largest_sizes(config: dict[str, Any]) -> dict[str, int]:
    """The largest size of those dims of the usual inputs that have one."""
    most = most_tokens(config)
    return {} if most is None else {"length": most}


SOURCE: Source = _HfFolder()
