"""How large a picture may be, judged before it is decoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from PIL import Image

from mergevq.ranges import Range, check_numbers

MaxPixels = Annotated[int, Range(1, 10**10)]
MaxAspect = Annotated[float, Range(1, 10**6)]

_LESS_AT_REDUCED_SIZE = 4
"""How many pixels of a JPEG that is decoded at a reduced size count as one: most of the time remains, and for
a progressive one the memory as well, so that it counts in full."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What one picture may take.

    Attributes:
        max_pixels: width times height. A decoded pixel takes 4 bytes, and up to 14 while it is converted.
        max_aspect: the longer side over the shorter one.

    Raises:
        ConfigError: a limit that no picture can keep.
    """

    max_pixels: MaxPixels = 89_478_485  # Pillow's own: a quarter of a GiB at 3 bytes a pixel
    max_aspect: MaxAspect = 100.0

    def __post_init__(self) -> None:
        check_numbers(self, "")

    def admit(self, image: Image.Image, at_least: int | None = None) -> int:
        """Lets a picture through that is not decoded yet, a JPEG at a reduced size where that is enough.

        Args:
            image: the picture.
            at_least: see `to_rgb`.

        Returns:
            By how much it will be smaller: 1, 2, 4 or 8 times.

        Raises:
            ValueError: it is too large or too long.
        """
        width, height = image.size
        if max(width, height) > self.max_aspect * min(width, height):
            raise ValueError(
                f"{width} x {height} px has a longer side of {max(width, height) / max(min(width, height), 1):.0f} "
                f"times the shorter one, and max_aspect is {self.max_aspect:g}; raise it or cut the picture"
            )
        drafted = None if at_least is None else image.draft(None, (at_least, at_least))
        scale = 1 if drafted is None else round(width / drafted[1][2])
        reduced = scale > 1 and not image.info.get("progressive")
        if width * height > self.max_pixels * (_LESS_AT_REDUCED_SIZE if reduced else 1):
            raise ValueError(
                f"{width} x {height} px are {width * height}, and max_pixels is "
                f"{self.max_pixels}; raise it or make the picture smaller"
            )
        return scale


DEFAULT_LIMITS = Limits()
