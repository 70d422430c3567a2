"""preprocessor_config.json, in all the ways in which it has been written, as options of a pipeline's image step."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from mlpack.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

PROCESSOR = "preprocessor_config.json"
_RESAMPLING = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
_BILINEAR, _BICUBIC = 2, 3
_IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
_HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
_CLIP = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
_SQUARE = {"height": 224, "width": 224}
_CROPPED = {"size": {"shortest_edge": 224}, "square": False, "crop_size": _SQUARE, "do_center_crop": True}
# What a processor does where its file is silent: files of older versions say only what was changed. `square`: a size
# that is one number is both sides, not the shorter one.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "ViT": {**_HALF, "resample": _BILINEAR, "size": _SQUARE},
    "DeiT": {
        **_HALF, "resample": _BICUBIC, "size": {"height": 256, "width": 256}, "crop_size": _SQUARE,
        "do_center_crop": True,
    },
    "Beit": {**_HALF, "resample": _BICUBIC, "size": _SQUARE, "crop_size": _SQUARE},
    "ConvNext": {
        **_HALF, "resample": _BICUBIC, "size": {"shortest_edge": 384}, "square": False, "crop_pct": 224 / 256,
    },
    "CLIP": {**_CLIP, **_CROPPED, "resample": _BICUBIC, "do_convert_rgb": True},
    "Bit": {**_CLIP, **_CROPPED, "resample": _BICUBIC, "do_convert_rgb": True},
    "Siglip": {**_HALF, "resample": _BICUBIC, "size": _SQUARE, "do_convert_rgb": True},
    "Pvt": {**_IMAGENET, "resample": _BICUBIC, "size": _SQUARE},
    "MobileNetV1": {**_HALF, **_CROPPED, "resample": _BILINEAR, "size": {"shortest_edge": 256}},
    "MobileNetV2": {**_HALF, **_CROPPED, "resample": _BILINEAR, "size": {"shortest_edge": 256}},
    "MobileViT": {
        **_HALF, **_CROPPED, "resample": _BICUBIC, "crop_size": {"height": 256, "width": 256}, "do_normalize": False,
        "do_flip_channel_order": True,
    },
    "EfficientNet": {
        **_HALF, "resample": _BICUBIC, "size": {"height": 346, "width": 346},
        "crop_size": {"height": 289, "width": 289}, "include_top": True,
    },
}  # fmt: skip
# Which processor a model comes with, where the file does not name one.
_USUAL = {
    "vit": "ViT", "swin": "ViT", "swinv2": "ViT", "vit_mae": "ViT", "vit_msn": "ViT", "swiftformer": "ViT",
    "deit": "DeiT", "beit": "Beit", "data2vec-vision": "Beit", "convnext": "ConvNext", "convnextv2": "ConvNext",
    "cvt": "ConvNext", "regnet": "ConvNext", "resnet": "ConvNext", "bit": "Bit", "dinov2": "Bit", "focalnet": "Bit",
    "hiera": "Bit", "pvt": "Pvt", "pvt_v2": "Pvt", "mobilenet_v1": "MobileNetV1", "mobilenet_v2": "MobileNetV2",
    "mobilevit": "MobileViT", "mobilevitv2": "MobileViT", "efficientnet": "EfficientNet",
}  # fmt: skip
_ENDINGS = ("ImageProcessorFast", "ImageProcessorPil", "ImageProcessor", "FeatureExtractor")
# From this size on ConvNext's processor warps the whole image instead of cutting its edge off.
_CONVNEXT_WARPS = 384
_SPELLED_OUT = "give what comes before the model yourself: --preprocess file.py:function"


def image_step(told: dict[str, Any], config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The image step of a pipeline that gives the pixels that transformers' own processor gives.

    Raises:
        ModelError: the processor is of no kind that is known, or does what an image step does not.
    """
    kind = _kind(told, config)
    if kind not in _DEFAULTS:
        raise ModelError(f"{folder / PROCESSOR} is of a kind that is not known: {kind or 'not named'}", _SPELLED_OUT)
    # null means the default, as it does to transformers.
    options = {**_DEFAULTS[kind], **{name: value for name, value in told.items() if value is not None}}
    try:
        geometry = _geometry(options, kind)
        pixels = _pixels(options)
        resample = _RESAMPLING[int(options["resample"])]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ModelError(
            f"{folder / PROCESSOR} cannot be followed: {type(error).__name__}: {error}", _SPELLED_OUT
        ) from error
    step = {"kind": "image", "input": "pixel_values", **geometry, "resample": resample, **pixels}
    # numpy's rounding in transformers: the odd pixel is cut off at the end.
    if "crop" in step:
        step["crop_rounding"] = "floor"
    if int(config.get("num_channels") or 3) == 1:
        step["channels"] = "gray"
    elif options.get("do_flip_channel_order"):
        step["channels"] = "bgr"
    if options.get("do_convert_rgb"):
        step["background"] = [255, 255, 255]
    return step


def processed_size(folder: Path, config: dict[str, Any]) -> tuple[int, int] | None:
    """Height and width of what the folder's processor gives; None where it has none that can be followed."""
    try:
        step = image_step(json.loads((folder / PROCESSOR).read_text(encoding="utf-8")), config, folder)
    except (ModelError, OSError, ValueError, AttributeError):
        return None
    height, width = step.get("crop") or step["resize"]
    return height, width


def _kind(told: dict[str, Any], config: dict[str, Any]) -> str:
    named = str(told.get("image_processor_type") or told.get("feature_extractor_type") or "")
    ending = next((each for each in _ENDINGS if named.endswith(each)), "")
    return named.removesuffix(ending) or _USUAL.get(str(config.get("model_type")), "")


def _geometry(options: dict[str, Any], kind: str) -> dict[str, Any]:
    """`resize` and `crop` of an image step; all images have to come out in one size."""
    made: dict[str, Any] = {}
    if options.get("do_resize", True):
        size = _sides(options["size"], square=options.get("square", True))
        if kind == "ConvNext":
            made = _convnext(size, float(options["crop_pct"]))
        else:
            made["resize"] = size
    if options.get("do_center_crop"):
        if "crop" in made:
            raise ValueError("it crops twice")
        crop = _sides(options["crop_size"], square=True)
        made["crop"] = crop if isinstance(crop, list) else [crop, crop]
    if "crop" not in made and not isinstance(made.get("resize"), list):
        raise ValueError("its images come out in different sizes")
    if options.get("do_pad"):
        raise ValueError("it pads images")
    return made


def _convnext(size: list[int] | int, share: float) -> dict[str, Any]:
    if isinstance(size, list):
        raise ValueError("its size is no shortest_edge")  # noqa: TRY004 - a value of the file, not a type of ours
    if size >= _CONVNEXT_WARPS:
        return {"resize": [size, size]}
    return {"resize": int(size / share), "crop": [size, size]}


def _sides(size: Any, *, square: bool) -> list[int] | int:
    """[height, width], or the shorter side alone."""
    if isinstance(size, int):
        return [size, size] if square else size
    if isinstance(size, list):
        return [int(size[0]), int(size[1])]
    known = {name: int(value) for name, value in size.items() if value}
    if set(known) == {"height", "width"}:
        return [known["height"], known["width"]]
    if set(known) == {"shortest_edge"}:
        return known["shortest_edge"]
    raise ValueError(f"size {size}")


def _pixels(options: dict[str, Any]) -> dict[str, Any]:
    """`rescale`, `mean` and `std` of an image step."""
    scale = float(options.get("rescale_factor", 1 / 255)) if options.get("do_rescale", True) else 1.0
    mean, std = [0.0], [1.0]
    if options.get("do_normalize", True):
        mean, std = _channels(options["image_mean"]), _channels(options["image_std"])
    if options.get("rescale_offset") and options.get("do_rescale", True):
        # It takes 1 off before it normalizes.
        mean = [each + 1 for each in mean]
    if options.get("include_top"):
        # It divides once more by the deviations.
        std = [each * other for each, other in zip(_alike(std), _alike(_channels(options["image_std"])), strict=True)]
    return {"rescale": scale, "mean": mean, "std": std}


def _channels(value: Any) -> list[float]:
    return [float(value)] if isinstance(value, int | float) else [float(each) for each in value]


def _alike(values: list[float]) -> list[float]:
    return values * 3 if len(values) == 1 else values
