"""What the tokenizer makes of a batch of images: kept codes, and where each came from.

As tensors (`Tokens`), and as NumPy arrays (`TokenArrays`) for files and for graphs that run without PyTorch, which
this module therefore imports only where tensors are made.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mergevq.errors import CheckpointError, UsageError
from mergevq.inputs import checked_grid

if TYPE_CHECKING:
    import torch


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
        _check_shapes(self.indices.shape, self.source.shape, self.sizes.shape, self.grid)

    def __len__(self) -> int:
        return self.indices.shape[0]

    @property
    def keep(self) -> int:
        """K, the number of kept tokens."""
        return self.indices.shape[1]

    def to(self, device: torch.device | str) -> Tokens:
        """The same tokens on another device."""
        return Tokens(self.indices.to(device), self.source.to(device), self.sizes.to(device), self.grid)

    def arrays(self) -> TokenArrays:
        """The same tokens as NumPy arrays."""
        indices, source, sizes = (part.cpu().numpy() for part in (self.indices, self.source, self.sizes))
        return TokenArrays(indices, source, sizes, self.grid)

    def __getitem__(self, rows: Any) -> Tokens:
        """The tokens of some images: of one, as a batch of one, of a slice, or of those that a list or a mask names."""
        rows = _rows(rows, len(self))
        return Tokens(self.indices[rows], self.source[rows], self.sizes[rows], self.grid)

    def __iter__(self) -> Iterator[Tokens]:
        """The tokens of one image after another, each as a batch of one."""
        return (self[row] for row in range(len(self)))


@dataclass(frozen=True, slots=True)
class TokenArrays:
    """The tokens of a batch as NumPy arrays; the attributes are those of `Tokens`."""

    indices: np.ndarray
    source: np.ndarray
    sizes: np.ndarray
    grid: tuple[int, int]

    def __post_init__(self) -> None:
        _check_shapes(self.indices.shape, self.source.shape, self.sizes.shape, self.grid)

    def __len__(self) -> int:
        return self.indices.shape[0]

    @property
    def keep(self) -> int:
        """K, the number of kept tokens."""
        return self.indices.shape[1]

    def tensors(self) -> Tokens:
        """The same tokens for PyTorch, on the CPU."""
        import torch

        indices, source, sizes = map(torch.from_numpy, (self.indices, self.source, self.sizes))
        return Tokens(indices, source, sizes, self.grid)

    def __getitem__(self, rows: Any) -> TokenArrays:
        """The tokens of some images: of one, as a batch of one, of a slice, or of those that a list or a mask names."""
        rows = _rows(rows, len(self))
        return TokenArrays(self.indices[rows], self.source[rows], self.sizes[rows], self.grid)

    def __iter__(self) -> Iterator[TokenArrays]:
        """The tokens of one image after another, each as a batch of one."""
        return (self[row] for row in range(len(self)))


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


def joined_arrays(parts: Sequence[TokenArrays]) -> TokenArrays:
    """The tokens of several batches with one K and one grid as one batch."""
    return TokenArrays(
        np.concatenate([part.indices for part in parts]),
        np.concatenate([part.source for part in parts]),
        np.concatenate([part.sizes for part in parts]),
        parts[0].grid,
    )


def check_maker(fingerprint: str, expected: str) -> None:
    """Makes sure that a tokenizer is the one that tokens were made by.

    Args:
        fingerprint: of the tokenizer at hand.
        expected: of the one that made the tokens.

    Raises:
        CheckpointError: it is another.
    """
    if fingerprint != expected:
        raise CheckpointError(
            f"the tokens were made by another tokenizer (fingerprint {expected[:12]}, this one has "
            f"{fingerprint[:12]}); give the checkpoint that they were encoded with"
        )


def _rows(rows: Any, batch: int) -> Any:
    """What takes the rows that are asked for and leaves the batch dimension.

    Raises:
        UsageError: rows are asked for by something else than numbers.
        IndexError: there is no such row, as iteration expects.
    """
    if isinstance(rows, (str, bytes, tuple)) or rows is None or rows is Ellipsis:
        raise UsageError(
            f"tokens are taken by row, with a number, a slice, a list or a mask, not by {rows!r}"
        )
    if getattr(rows, "ndim", 0) or not hasattr(rows, "__index__"):
        return rows
    row = operator.index(rows)
    if not -batch <= row < batch:
        raise IndexError(f"there is no row {row}; the tokens are those of {batch} images")
    return slice(row % batch, row % batch + 1)


def _check_shapes(
    indices: Sequence[int], source: Sequence[int], sizes: Sequence[int], grid: tuple[int, int]
) -> None:
    """Whether tokens, of either kind, fit one another."""
    height, width = checked_grid(grid)
    if len(indices) != 2:
        raise UsageError(f"indices are {tuple(indices)}; (B, K) is wanted, a row for each image")
    batch, kept = indices
    if tuple(sizes) != (batch, kept):
        raise UsageError(f"sizes are {tuple(sizes)}, indices {(batch, kept)}; they must agree")
    if tuple(source) != (batch, height * width):
        raise UsageError(
            f"source is {tuple(source)}; a {height} x {width} grid needs {(batch, height * width)}"
        )
