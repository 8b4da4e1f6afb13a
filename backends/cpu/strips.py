"""Pieces of pictures with the border that a 3x3 convolution needs, normalised and activated on the way.

A strip of a large picture stays in the caches between what prepares it and what convolves it, and is
written over by the next one: the picture as a whole is read once and written once.

Legend: B batch, C channels, h w resolution, n pictures, r rows of tiles of 4 x 4, S columns of tiles.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

Affine = tuple[torch.Tensor, torch.Tensor]
"""(B, C) factors and (B, C) summands of a normalisation, which SiLU follows."""


class Strips:
    """The strips of a batch, one at a time from the top of each picture to its bottom.

    A strip keeps the last two rows of the one before: once a strip is out, its rows of the batch, and
    those above them, are never read again.

    Args:
        x: (B, h, w, C).
        affine: to normalise with before SiLU; or None, and the strips are the pictures as they are.
        images: most pictures in a strip.
        rows: most rows of tiles in a strip.
    """

    def __init__(self, x: torch.Tensor, affine: Affine | None, images: int, rows: int):
        self.x = x
        self.affine = None if affine is None else [values[:, None, None] for values in affine]  # (B, 1, 1, C)
        columns = -(-x.shape[2] // 4)
        self.buffer = x.new_zeros(images, 4 * rows + 2, 4 * columns + 2, x.shape[3])

    def __call__(self, images: slice, rows: slice) -> torch.Tensor:
        """The strip of some pictures and rows of tiles: (n, 4r + 2, 4S + 2, C)."""
        height, width = self.x.shape[1:3]
        pictures = self.x[images]
        strip = self.buffer[: len(pictures), : 4 * (rows.stop - rows.start) + 2]
        above = 4 * rows.start - 1  # the row of the picture that the strip begins with
        if rows.start:
            strip[:, :2] = self.buffer[: len(pictures), -2:]
            first = above + 2
        else:
            strip[:, 0] = 0
            first = 0
        last = min(4 * rows.stop + 1, height)
        self._prepare(images, pictures[:, first:last], strip[:, first - above : last - above, 1 : width + 1])
        strip[:, last - above :] = 0
        return strip

    def _prepare(self, images: slice, pixels: torch.Tensor, out: torch.Tensor) -> None:
        """Writes what the convolution sees of (n, rows, w, C) pixels."""
        if self.affine is None:
            out.copy_(pixels)
            return
        factor, summand = (values[images] for values in self.affine)
        F.silu(torch.addcmul(summand, pixels, factor, out=out), inplace=True)
