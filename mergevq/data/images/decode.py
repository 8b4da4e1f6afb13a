"""Picture files to upright, opaque, 8-bit RGB.

In: anything Pillow opens. Out: a `PIL.Image` in mode RGB. EXIF rotation is applied, transparency is
composited over white, and deep pixels are scaled to 8 bits (Pillow's own conversion clips them).
Inverted CMYK needs no care here: Pillow undoes Adobe's inversion while it decodes. A truncated file
is an error, never a half-grey picture.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from mergevq.errors import DataError

logger = logging.getLogger(__name__)

_NOT_OF_THE_PICTURE = (errno.EMFILE, errno.ENFILE)
"""Too many open files: every picture would count as unreadable."""

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def to_rgb(image: Image.Image, at_least: int | None = None) -> Image.Image:
    """An upright, opaque RGB picture with 8 bits a channel.

    Integers without a depth of their own (mode I) count as 16 bits up to 65,535 and as 32 bits
    beyond; floats (mode F) as [0, 1], [0, 255] or [0, 65535], the first range that holds them, else
    white is their maximum.

    Args:
        image: an opened picture; it may still be undecoded.
        at_least: where given, a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size as long as both
            sides keep this many pixels. Much faster for large photographs.

    Raises:
        ValueError: the pixels are not numbers, or negative floats.
        OSError: the file is broken; Pillow has further exceptions for that, see `reading`.
    """
    if at_least is not None:
        image.draft(None, (at_least, at_least))
    image.load()
    return _opaque(_upright(image))


def load_image(path: str | Path) -> Image.Image:
    """The RGB picture in a file.

    Raises:
        DataError: the file is missing, truncated, no picture, or too large to be honest.
    """
    with reading(str(path)), Image.open(path) as image:
        return to_rgb(image)


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turns whatever a broken picture raises inside the block into one DataError.

    Args:
        name: what is being read, for the message; the cause is chained, `reason` words it.
    """
    try:
        yield
    except Exception as error:  # Pillow's plugins raise nearly every type there is on broken bytes
        if isinstance(error, OSError) and error.errno in _NOT_OF_THE_PICTURE:
            raise
        raise DataError(f"cannot read {name}: {reason(error)}") from error


def reason(error: BaseException | None) -> str:
    """Why a picture cannot be read, in words that are the same each time."""
    if isinstance(error, UnidentifiedImageError):
        return "not a picture in a format that Pillow knows"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split())
    return (
        text
        if isinstance(error, (OSError, ValueError)) and text
        else f"{type(error).__name__} {text}".strip()
    )


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception as error:  # a broken EXIF block must not cost the picture, and raises any type
        logger.debug("ignoring unreadable EXIF data: %s", error)
        return image
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _opaque(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "F" or image.mode.startswith("I"):
        return _to_8_bits(image).convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _to_8_bits(image: Image.Image) -> Image.Image:
    pixels = np.asarray(image).astype(np.float64)
    low, high = float(pixels.min()), float(pixels.max())
    if not np.isfinite([low, high]).all():
        raise ValueError("its floating-point pixels hold NaN or infinity")
    if image.mode == "F" and low < 0:
        raise ValueError(f"its floating-point pixels go down to {low:.3g}; 0 or more is wanted")
    if image.mode.startswith("I;16"):
        white = 65535.0
    else:
        ranges = (1.0, 255.0, 65535.0) if image.mode == "F" else (65535.0, 2.0**31 - 1)
        white = next((value for value in ranges if high <= value), high)
    return Image.fromarray(np.clip(np.rint(pixels * (255.0 / white)), 0, 255).astype(np.uint8))
