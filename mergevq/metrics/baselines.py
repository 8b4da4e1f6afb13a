"""What a picture of a few bits looks like without a learned tokenizer: its mean colour, and JPEG.

uint8 pictures in, pictures out. Tables and headers dominate the size of a small JPEG file (over 600 bytes)
and say nothing about the picture, so a budget is held against the entropy-coded scan alone, which favours
JPEG: its Huffman tables are optimised for each picture and cost nothing here. `Jpeg` carries both sizes.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from mergevq.errors import UsageError
from mergevq.metrics.image import psnr

_QUALITIES = range(1, 101)
_SUBSAMPLINGS = ("4:4:4", "4:2:0")
_START_OF_SCAN = 0xDA


@dataclass(frozen=True, slots=True)
class Jpeg:
    """One baseline JPEG of a picture."""

    image: torch.Tensor
    """(3, H, W) uint8, decoded."""
    psnr: float
    """Decibels against the original."""
    quality: int
    """1 to 100."""
    subsampling: str
    """Of the chroma: 4:4:4 or 4:2:0."""
    scan_bits: int
    """Entropy-coded data alone, without headers and tables."""
    file_bits: int
    """The whole file."""


def mean_colour(images: torch.Tensor) -> torch.Tensor:
    """Each picture painted in its own mean colour, 24 bits of information.

    Args:
        images: (B, 3, H, W) uint8.

    Returns:
        (B, 3, H, W) uint8.
    """
    return images.float().mean((2, 3), keepdim=True).round().to(torch.uint8).expand_as(images)


def jpeg_at_bits(image: torch.Tensor, bits: int) -> Jpeg | None:
    """The best JPEG whose scan fits a budget.

    Args:
        image: (3, H, W) uint8.
        bits: the budget for the entropy-coded scan.

    Returns:
        The better by PSNR of the highest qualities that fit with and without chroma subsampling, each
        found by bisection; None where not even quality 1 fits.
    """
    return jpegs_at_bits(image, [bits])[0]


def jpegs_at_bits(image: torch.Tensor, budgets: Sequence[int]) -> list[Jpeg | None]:
    """`jpeg_at_bits` for several budgets, each quality encoded once.

    Args:
        image: (3, H, W) uint8.
        budgets: bits for the entropy-coded scan.

    Returns:
        One JPEG, or None, a budget.

    Raises:
        UsageError: the picture is not (3, H, W) uint8.
    """
    if image.dtype != torch.uint8 or image.dim() != 3 or image.shape[0] != 3:
        raise UsageError(f"a picture is (3, H, W) uint8, not {tuple(image.shape)} {image.dtype}")
    encoders = [_Encoder(image, subsampling) for subsampling in _SUBSAMPLINGS]
    best: list[Jpeg | None] = []
    for bits in budgets:
        fits = [jpeg for encoder in encoders if (jpeg := encoder.best(bits)) is not None]
        best.append(max(fits, key=lambda jpeg: jpeg.psnr, default=None))
    return best


class _Encoder:
    """The JPEGs of one picture, encoded when a search first asks for them."""

    def __init__(self, image: torch.Tensor, subsampling: str) -> None:
        self._original = image.cpu()
        self._picture = Image.fromarray(self._original.permute(1, 2, 0).numpy())
        self._subsampling = subsampling
        self._files: dict[int, bytes] = {}

    def best(self, bits: int) -> Jpeg | None:
        """The highest quality whose scan fits."""
        low, high = _QUALITIES[0] - 1, _QUALITIES[-1]  # `low` fits, or is below every quality
        while low < high:
            middle = (low + high + 1) // 2
            if _scan_bits(self._file(middle)) <= bits:
                low = middle
            else:
                high = middle - 1
        return self._decode(low) if low in _QUALITIES else None

    def _file(self, quality: int) -> bytes:
        if quality not in self._files:
            buffer = io.BytesIO()
            self._picture.save(buffer, "JPEG", quality=quality, subsampling=self._subsampling, optimize=True)
            self._files[quality] = buffer.getvalue()
        return self._files[quality]

    def _decode(self, quality: int) -> Jpeg:
        file = self._file(quality)
        with Image.open(io.BytesIO(file)) as picture:
            image = torch.from_numpy(np.array(picture)).permute(2, 0, 1)  # (3, H, W)
        decibels = float(psnr(image[None], self._original[None]))
        return Jpeg(image, decibels, quality, self._subsampling, _scan_bits(file), 8 * len(file))


def _scan_bits(file: bytes) -> int:
    """Bits between the header of a sequential JPEG's only scan and the end-of-image marker."""
    at = 2  # after the start-of-image marker
    while file[at + 1] != _START_OF_SCAN:
        at += 2 + int.from_bytes(file[at + 2 : at + 4], "big")
    header = 2 + int.from_bytes(file[at + 2 : at + 4], "big")
    return 8 * (len(file) - at - header - 2)
