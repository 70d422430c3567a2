"""A Hugging Face folder: config.json says the architecture, safetensors hold the weights; transformers reads both.

Nothing is fetched: hubs are never asked, and code that a folder brings along is never run.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from typing import TYPE_CHECKING, Any

from mlpack.core.loader import Loader
from mlpack.core.model import sha256_of
from mlpack.errors import MissingLibrary, ModelError
from mlpack.sources.source import Detected
from mlpack.sources.taking import copy_in

if TYPE_CHECKING:
    from pathlib import Path

    from mlpack.core.recipe import SourceSpec
    from mlpack.sources.source import Source

CONFIG = "config.json"
KEPT_IN = "hf"
_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
# Architectures that write text one token at a time: their speed is that of a loop around the model.
_GENERATIVE = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "ForSpeechSeq2Seq", "ForSeq2SeqLM")
_SAVE = "model.save_pretrained(FOLDER)"


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
            f"{given} is a {architecture}: generative models come with a later version",
            "encoders, classifiers, taggers, question answering, embeddings and image models can be optimized",
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
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(f"{given}/{_INDEX} is damaged", f"save the model again: {_SAVE}") from error
    files = []
    for name in names:
        # A name with a folder in it would reach out of this one.
        if not isinstance(name, str) or "/" in name or "\\" in name or not (index.parent / name).is_file():
            raise ModelError(f"{given}/{_INDEX} names a file that is not there: {name!r}", "copy or download it again")
        files.append(index.parent / name)
    return files


class _HfFolder:
    def write(self, detected: Detected, spec: SourceSpec, out: Path) -> None:
        """Take config and weights over, and say what usually goes in."""
        import transformers

        folder = detected.file
        for file in (folder / CONFIG, *_weights(folder, spec.model)):
            copy_in(file, out / KEPT_IN / file.name)
        config = read_config(folder, spec.model)
        Loader(
            kind="hf_folder",
            sha256=detected.sha256,
            archive=KEPT_IN,
            usual=usual_inputs(config),
            unwrapped=tuple(_notes(folder, config)),
            library=f"transformers {transformers.__version__}",
        ).write(out)


def _notes(folder: Path, config: dict[str, Any]) -> list[str]:
    """What a reader should know of how the folder is read."""
    notes = [
        f"{name} is not read: the weights are those in safetensors" for name in _PICKLED if (folder / name).exists()
    ]
    dtype = config.get("dtype") or config.get("torch_dtype")
    if dtype in {"float16", "bfloat16"}:
        notes.append(f"the weights are {dtype}: widened to float32, which the numerics flags narrow again")
    return notes


def usual_inputs(config: dict[str, Any]) -> tuple[str, ...]:
    """What goes into a model of this kind, as `--input` has it; nothing where the config does not tell.

    Text: token ids and mask, both of any length. Images: pixels, of the size that the config names (224 where it
    does not).
    """
    vision = config.get("vision_config") is None and ("image_size" in config or "num_channels" in config)
    if vision:
        size = config.get("image_size") or 224
        height, width = size if isinstance(size, list) else (size, size)
        return (f"pixel_values=float32:batch,{config.get('num_channels', 3)},{height},{width}",)
    if "vocab_size" not in config:
        return ()
    names = ["input_ids", "attention_mask"]
    if int(config.get("type_vocab_size") or 0) > 1:
        names.append("token_type_ids")
    return tuple(f"{name}=int64:batch,length" for name in names)


SOURCE: Source = _HfFolder()
