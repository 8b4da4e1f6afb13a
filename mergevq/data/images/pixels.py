"""PIL pictures to arrays of pixels, and pixels to the model's [-1, 1] and back. Needs no PyTorch.

Legend: S pixels a side.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from mergevq.data.images.formats.frame import frame
from mergevq.errors import UsageError

_BICUBIC = Image.Resampling.BICUBIC
_LONG = 16
"""Longer than so many squares, a picture is cropped before it is resized."""
_ROOM = 4
"""How many times the size of a centre crop the short side of a JPEG keeps when it is decoded at a reduced size:
then the crop is within half a grey level of the full picture's on average."""


def decoded_side(size: int) -> int:
    """Pixels of the short side that a centre crop of S can do with, see `to_rgb`."""
    return _ROOM * size


def center_crop(image: Image.Image, size: int) -> np.ndarray:
    """The short side resized to S (bicubic), and the middle cut out: (3, S, S) uint8.

    Ordinary pictures are resized as a whole, which is torchvision's result to the bit. Of long ones only the
    crop is computed, since 30,000 x 2 px would become 4 GB first; its levels may differ by rounding.
    """
    place = frame(image)
    sides = place.width, place.height
    short = min(sides)
    width, height = (int(size * side / short) for side in sides)
    left, top = (round((side - size) / 2) for side in (width, height))
    if max(sides) > _LONG * short or place.width < image.width or place.height < image.height:
        x, y = place.width / width, place.height / height
        box = place.left + left * x, place.top + top * y, size * x, size * y
        return channels_first(resample(image, box, size))
    if short != size:
        image = image.resize((width, height), _BICUBIC)
    return channels_first(image.crop((left, top, left + size, top + size)))


def resample(image: Image.Image, box: tuple[float, float, float, float], size: int) -> Image.Image:
    """The S x S picture of a box (left, top, width, height): one step of cropping and resizing."""
    left, top, width, height = box
    right, bottom = min(left + width, image.width), min(top + height, image.height)
    return image.resize((size, size), _BICUBIC, box=(left, top, right, bottom))


def middle_crop(image: Image.Image, multiple: int) -> np.ndarray:
    """The middle of a picture with sides that are multiples of `multiple`: (3, H, W) uint8.

    Raises:
        UsageError: a side is shorter than that.
    """
    if min(image.size) < multiple:
        raise UsageError(f"{image.width} x {image.height} px is smaller than one patch of {multiple} px")
    width, height = (side // multiple * multiple for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    pixels = np.asarray(image)[top : top + height, left : left + width]
    return pixels.transpose(2, 0, 1).copy()


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
