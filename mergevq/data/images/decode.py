"""Picture files to upright, opaque, 8-bit RGB.

In: anything Pillow opens. Out: a `PIL.Image` in mode RGB. EXIF rotation is applied, transparency is
composited over white, and deep pixels are scaled to 8 bits (Pillow's own conversion clips them).
Inverted CMYK needs no care here: Pillow undoes Adobe's inversion while it decodes. A truncated file
is an error, never a half-grey picture.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from mergevq.data.images.formats.depth import to_8_bits
from mergevq.data.images.formats.frame import set_frame
from mergevq.data.images.formats.limits import DEFAULT_LIMITS, Limits
from mergevq.data.images.formats.opening import open_picture
from mergevq.data.images.formats.png import colour_key
from mergevq.errors import DataError

logger = logging.getLogger(__name__)

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: (Image.Transpose.FLIP_LEFT_RIGHT, (True, False)),
    3: (Image.Transpose.ROTATE_180, (True, True)),
    4: (Image.Transpose.FLIP_TOP_BOTTOM, (False, True)),
    5: (Image.Transpose.TRANSPOSE, (False, False)),
    6: (Image.Transpose.ROTATE_270, (True, False)),
    7: (Image.Transpose.TRANSVERSE, (True, True)),
    8: (Image.Transpose.ROTATE_90, (False, True)),
}
"""For EXIF's orientations, how a picture is turned, and which of the axes it then has are mirrored."""
_ON_ITS_SIDE = 5
"""The first of the orientations that exchange the axes."""
_STRIP = 2**20
"""Pixels that are composited at once."""


def to_rgb(image: Image.Image, at_least: int | None = None, limits: Limits = DEFAULT_LIMITS) -> Image.Image:
    """An upright, opaque RGB picture with 8 bits a channel.

    Integers without a depth of their own (mode I) count as 16 bits up to 65,535 and as 32 bits
    beyond; floats (mode F) as [0, 1], [0, 255] or [0, 65535], the first range that holds them, else
    white is their maximum.

    Args:
        image: an opened picture; it may still be undecoded.
        at_least: where given, a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size as long as both
            sides keep this many pixels. Much faster for large photographs.
        limits: how large it may be.

    Raises:
        ValueError: it is too large, the pixels are not numbers, or negative.
        OSError: the file is broken; Pillow has further exceptions for that, see `reading`.
    """
    width, height = image.size
    scale = limits.admit(image, at_least)
    key = colour_key(image)
    image.load()
    orientation = _orientation(image)
    opaque = _opaque(image, key)
    turn, mirrored = _UPRIGHT.get(orientation, (None, (False, False)))
    upright = opaque if turn is None else opaque.transpose(turn)
    if scale > 1:
        width, height = (height, width) if orientation >= _ON_ITS_SIDE else (width, height)
        set_frame(upright, width / scale, height / scale, mirrored)
    return upright


def load_image(path: str | Path, at_least: int | None = None, limits: Limits = DEFAULT_LIMITS) -> Image.Image:
    """The RGB picture in a file; the arguments are those of `to_rgb`.

    Raises:
        DataError: the file is missing, truncated, no picture, or too large.
    """
    with reading(str(path)), open(path, "rb") as file:
        return to_rgb(open_picture(file.read()), at_least, limits)


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turns whatever a broken picture raises inside the block into one DataError.

    Args:
        name: what is being read, for the message; the cause is chained, `reason` words it. A DataError passes.
    """
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # Pillow's plugins raise nearly every type there is on broken bytes
        raise DataError(f"cannot read {name}: {reason(error)}") from error


def reason(error: BaseException | None) -> str:
    """Why a picture cannot be read, in words that are the same each time."""
    if isinstance(error, UnidentifiedImageError):
        return "not a picture in a format that Pillow knows"
    if isinstance(error, MemoryError):
        return "it does not fit into memory"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split())
    return (
        text
        if isinstance(error, (OSError, ValueError)) and text
        else f"{type(error).__name__} {text}".strip()
    )


def _orientation(image: Image.Image) -> int:
    """EXIF's, from 1 to 8; 1 where there is none that makes sense."""
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception as error:  # a broken EXIF block must not cost the picture, and raises any type
        logger.debug("ignoring unreadable EXIF data: %s", error)
        return 1
    return orientation if orientation in _UPRIGHT else 1


def _opaque(image: Image.Image, key: np.ndarray | None) -> Image.Image:
    """A decoded picture in RGB over white; `key` marks pixels that are transparent beside those it knows of."""
    if image.mode == "RGB" and "transparency" not in image.info:
        opaque = image
    elif image.mode == "F" or image.mode.startswith("I"):
        opaque = to_8_bits(image).convert("RGB")
    elif image.has_transparency_data:
        opaque = _over_white(image.convert("LA") if image.mode == "La" else image)
    else:
        opaque = image.convert("RGB")
    if key is not None:
        opaque.paste((255, 255, 255), mask=Image.fromarray(key))
    return opaque


def _over_white(image: Image.Image) -> Image.Image:
    """In strips, since a whole picture would need three more of its size."""
    opaque = Image.new("RGB", image.size)
    rows = max(1, _STRIP // image.width)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height))).convert("RGBA")
        white = Image.new("RGBA", strip.size, "white")
        opaque.paste(Image.alpha_composite(white, strip).convert("RGB"), (0, top))
    return opaque
