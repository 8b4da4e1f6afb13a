"""What the tokenizer makes of a batch of images: kept codes, and where each came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

from mergevq.errors import UsageError


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of a batch.

    `source` is the source matrix S of Eq. 2 as integers: column j of the K x L matrix is one-hot at
    `source[:, j]`. Token k is the k-th cluster in raster order of the first position it covers, so
    position 0 always belongs to token 0.

    Attributes:
        indices: (B, K) int64, codes in [0, 2^d); bit i is dimension i.
        source: (B, L) int64 in [0, K), the token that covers each raster position.
        sizes: (B, K) int64, how many positions each token covers; rows sum to L.
        grid: (h, w) with h * w = L.
    """

    indices: torch.Tensor
    source: torch.Tensor
    sizes: torch.Tensor
    grid: tuple[int, int]

    def __post_init__(self) -> None:
        height, width = self.grid
        batch, kept = self.indices.shape
        if self.sizes.shape != (batch, kept):
            raise UsageError(f"sizes are {tuple(self.sizes.shape)}, indices {(batch, kept)}; they must agree")
        if self.source.shape != (batch, height * width):
            raise UsageError(
                f"source is {tuple(self.source.shape)}; a {height} x {width} grid needs {(batch, height * width)}"
            )

    def __len__(self) -> int:
        return self.indices.shape[0]

    @property
    def keep(self) -> int:
        """K, the number of kept tokens."""
        return self.indices.shape[1]

    def to(self, device: torch.device | str) -> Tokens:
        """The same tokens on another device."""
        return Tokens(self.indices.to(device), self.source.to(device), self.sizes.to(device), self.grid)

    def __getitem__(self, rows: slice) -> Tokens:
        """The tokens of a slice of the batch."""
        return Tokens(self.indices[rows], self.source[rows], self.sizes[rows], self.grid)


class TokenBatch(NamedTuple):
    """Tokens of several images, of which each may keep another number, with their classes."""

    labels: torch.Tensor
    """(B,) int64 in [0, classes)."""
    indices: torch.Tensor
    """(B, Kmax) int64; 0 past the kept count of a row."""
    source: torch.Tensor
    """(B, L) int64 in [0, kept count of the row)."""
    keep: torch.Tensor
    """(B,) int64."""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> TokenBatch:
        """The same batch on another device."""
        return TokenBatch(*(part.to(device, non_blocking=non_blocking) for part in self))
