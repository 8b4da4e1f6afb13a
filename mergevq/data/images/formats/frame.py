"""Where a picture lies among its pixels, to a fraction of one.

A JPEG of 1411 px that is decoded at 1/8 of its size has 177 columns, the last of which is outside by five
eighths. Crops that took it for the picture's would be off by twice as many grey levels.
"""

from __future__ import annotations

from typing import NamedTuple

from PIL import Image

_KEY = "mergevq frame"


class Frame(NamedTuple):
    """A rectangle in pixels."""

    left: float
    top: float
    width: float
    height: float


def frame(image: Image.Image) -> Frame:
    """Where the picture is: all pixels, unless `set_frame` said otherwise."""
    known: Frame | None = image.info.get(_KEY)
    return known or Frame(0.0, 0.0, float(image.width), float(image.height))


def set_frame(image: Image.Image, width: float, height: float, mirrored: tuple[bool, bool]) -> None:
    """Says that a picture does not fill its pixels.

    Args:
        image: what is cropped later; a picture that is made from it forgets the frame or has the same one.
        width, height: of the picture, less than a pixel below the number of pixels.
        mirrored: for each axis, whether the picture touches the last pixel and not the first.
    """
    image.info[_KEY] = Frame(
        image.width - width if mirrored[0] else 0.0,
        image.height - height if mirrored[1] else 0.0,
        width,
        height,
    )
