"""PIL pictures to arrays of pixels, and pixels to the model's [-1, 1] and back. Needs no PyTorch.

Legend: S pixels a side.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from mergevq.errors import UsageError


def center_crop(image: Image.Image, size: int) -> np.ndarray:
    """The short side resized to S (bicubic), and the middle cut out: (3, S, S) uint8."""
    short = min(image.size)
    if short != size:
        width, height = (int(size * side / short) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (round((side - size) / 2) for side in image.size)
    return channels_first(image.crop((left, top, left + size, top + size)))


def middle_crop(image: Image.Image, multiple: int) -> np.ndarray:
    """The middle of a picture with sides that are multiples of `multiple`: (3, H, W) uint8.

    Raises:
        UsageError: a side is shorter than that.
    """
    if min(image.size) < multiple:
        raise UsageError(f"{image.width} x {image.height} px is smaller than one patch of {multiple} px")
    width, height = (side // multiple * multiple for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return channels_first(image.crop((left, top, left + width, top + height)))


def channels_first(image: Image.Image, flip: bool = False) -> np.ndarray:
    """An RGB picture, mirrored if wanted, as (3, H, W) uint8 of its own."""
    pixels = np.asarray(image)
    if flip:
        pixels = pixels[:, ::-1]
    return pixels.transpose(2, 0, 1).copy()


def to_float(pixels: np.ndarray) -> np.ndarray:
    """uint8 in [0, 255] to float32 in [-1, 1], any shape."""
    return pixels.astype(np.float32) / np.float32(127.5) - np.float32(1)


def to_picture(image: np.ndarray) -> Image.Image:
    """(3, H, W) float32 in [-1, 1] to a picture: rounded to the nearest level, clamped."""
    levels = np.rint((image + np.float32(1)) * np.float32(127.5)).clip(0, 255)
    return Image.fromarray(levels.astype(np.uint8).transpose(1, 2, 0).copy())
