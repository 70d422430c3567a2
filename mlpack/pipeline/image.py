"""Image files to the pixels that a model takes: decode, resize, crop, rescale, normalize."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .faults import PipelineError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from PIL import Image

_ROUNDINGS: dict[str, Callable[[float], int]] = {"round": round, "floor": math.floor}
_MODES = {"rgb": "RGB", "bgr": "RGB", "gray": "L"}
# A small file can claim to be an image of terabytes.
MOST_PIXELS = 100_000_000


class ImagePreprocess:
    """Images (the bytes of files) to float32 [n, channels, height, width], or [n, height, width, channels].

    `resize` is [height, width], or one number for the shorter side; `crop` [height, width] is cut from the middle, and
    `crop_rounding` says where that begins when an odd number of pixels is cut off.
    A pixel v of 0..255 becomes (v * rescale - mean) / std, by channel. Transparent pixels are what lies under them,
    or `background` where that is given.
    """

    fields = ("image",)
    media = "image"

    def __init__(
        self,
        folder: Path,
        *,
        resize: Sequence[int] | int | None = None,
        crop: Sequence[int] | None = None,
        crop_rounding: Literal["round", "floor"] = "round",
        resample: Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"] = "bilinear",
        rescale: float = 1 / 255,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        channels: Literal["rgb", "bgr", "gray"] = "rgb",
        layout: Literal["nchw", "nhwc"] = "nchw",
        background: Sequence[int] | None = None,
        input: str = "image",  # noqa: A002 - the word of pipeline.yaml
    ) -> None:
        del folder
        size = crop or (resize if not isinstance(resize, int) else None)
        if size is None or len(size) != 2 or min(size) < 1:  # noqa: PLR2004 - height, width
            raise PipelineError("images need one size: resize: [height, width], or crop: [height, width]")
        self._resize = resize if isinstance(resize, int) or resize is None else (int(resize[0]), int(resize[1]))
        self._crop = None if crop is None else (int(crop[0]), int(crop[1]))
        self._rounded = _ROUNDINGS[crop_rounding]
        self._resample = resample
        self._mode = _MODES[channels]
        self._reverse = channels == "bgr"
        self._layout = layout
        self._background = tuple(background) if background else None
        self._rescale = np.float32(rescale)
        self._mean, self._std = (np.asarray(each, dtype=np.float32) for each in (mean, std))
        depth = 1 if channels == "gray" else 3
        height, width = int(size[0]), int(size[1])
        dims = (depth, height, width) if layout == "nchw" else (height, width, depth)
        self._name = input
        self.inputs = ((input, "float32", ("batch", *dims)),)

    def __call__(self, raw: Mapping[str, Sequence[Any]]) -> dict[str, np.ndarray]:
        """Pixels of each image."""
        pixels = []
        for row, content in enumerate(raw["image"]):
            try:
                pixels.append(self._pixels(decode(content)))
            except PipelineError as error:
                raise PipelineError(error.message, row) from error
        return {self._name: np.stack(pixels)}

    def lengths(self, raw: Mapping[str, Sequence[Any]]) -> None:
        """All images come out in one size."""
        del raw

    def _pixels(self, image: Image.Image) -> np.ndarray:
        image = self._flat(image)
        image = self._resized(image)
        if self._crop is not None:
            image = self._cropped(image, *self._crop)
        array = np.asarray(image, dtype=np.float32)
        if array.ndim == 2:  # noqa: PLR2004 - gray has no axis for its one channel
            array = array[:, :, None]
        if self._reverse:
            array = array[:, :, ::-1]
        array = (array * self._rescale - self._mean) / self._std
        return np.ascontiguousarray(array.transpose(2, 0, 1) if self._layout == "nchw" else array, dtype=np.float32)

    def _flat(self, image: Image.Image) -> Image.Image:
        from PIL import Image

        if self._background is not None and (image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info):
            image = image.convert("RGBA")
            below = Image.new("RGBA", image.size, (*self._background, 255))
            image = Image.alpha_composite(below, image)
        return image.convert(self._mode)

    def _resized(self, image: Image.Image) -> Image.Image:
        from PIL import Image

        if self._resize is None:
            return image
        if isinstance(self._resize, int):
            short = min(image.size)
            width, height = (max(1, int(side * self._resize / short)) for side in image.size)
        else:
            height, width = self._resize
        return image.resize((width, height), Image.Resampling[self._resample.upper()])

    def _cropped(self, image: Image.Image, height: int, width: int) -> Image.Image:
        """The middle; where the image is smaller, black surrounds it."""
        left, top = self._rounded((image.width - width) / 2), self._rounded((image.height - height) / 2)
        return image.crop((left, top, left + width, top + height))


def decode(content: Any) -> Image.Image:
    """The image in the bytes of a file, decoded whole.

    Raises:
        PipelineError: no image, one that is cut off, or too large a one.
    """
    from PIL import Image, UnidentifiedImageError

    if not isinstance(content, bytes | bytearray | memoryview):
        raise PipelineError(f"'image' is a {type(content).__name__}, not the bytes of an image file")
    try:
        image = Image.open(io.BytesIO(content))
        if image.width * image.height <= MOST_PIXELS:
            image.load()
    except UnidentifiedImageError:
        # Its own words name an object and its address.
        raise PipelineError("the image cannot be decoded: these are not the bytes of an image file") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise PipelineError(f"the image cannot be decoded: {error}") from error
    if image.width * image.height > MOST_PIXELS:
        raise PipelineError(f"the image has {image.width} x {image.height} pixels: more than {MOST_PIXELS:,}")
    return image
