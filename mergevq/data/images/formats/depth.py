"""Deep grey pixels to 8 bits: integers of 12 to 32 bits, and floats. Pillow's own conversion clips them."""

from __future__ import annotations

import numpy as np
from PIL import Image

_BITS, _PHOTOMETRIC = 258, 262
"""Tags of a TIFF."""
_STRIP = 2**20
"""Pixels that are computed at once, in floats of 64 bits."""


def to_8_bits(image: Image.Image) -> Image.Image:
    """A decoded picture of mode I, I;16 or F in mode L.

    Raises:
        ValueError: pixels are negative, or floats that are no numbers.
    """
    pixels = np.asarray(image)
    low, high = float(pixels.min()), float(pixels.max())
    if not np.isfinite([low, high]).all():
        raise ValueError("its floating-point pixels hold NaN or infinity")
    if low < 0:
        kind = "floating-point" if image.mode == "F" else "integer"
        raise ValueError(f"its {kind} pixels go down to {low:.3g}; 0 or more is wanted")
    tags = getattr(image, "tag_v2", {})
    scale = 255.0 / _white(image.mode, high, tags.get(_BITS, ()))
    levels = np.empty(pixels.shape, np.uint8)
    rows = max(1, _STRIP // max(1, image.width))
    for top in range(0, len(pixels), rows):
        strip = pixels[top : top + rows].astype(np.float64)
        levels[top : top + rows] = np.clip(np.rint(strip * scale), 0, 255)
    if tags.get(_PHOTOMETRIC) == 0:  # white is zero; Pillow heeds it for 8 bits and fewer
        np.subtract(255, levels, out=levels)
    return Image.fromarray(levels)


def _white(mode: str, high: float, bits: tuple[int, ...]) -> float:
    """The value that is white: what the depth says, else the end of the first range that holds all pixels."""
    if mode.startswith("I;16"):
        return 4095.0 if bits == (12,) else 65535.0
    ranges = (1.0, 255.0, 65535.0) if mode == "F" else (65535.0, 2.0**31 - 1)
    return next((value for value in ranges if high <= value), high)
