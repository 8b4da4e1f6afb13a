"""Where the tokens of a rand_ar image begin: drawn from those of training images, as PyTorch's side draws them.

Legend: B rows, L positions, n remembered sets.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mergevq.errors import UsageError
from mergevq.generation.settings import layout_seeds, row_uniform


def draw_layouts(
    bank: np.ndarray, theirs: np.ndarray, labels: np.ndarray, keep: np.ndarray, seeds: Sequence[int]
) -> np.ndarray:
    """A set of first positions for each row, from the training images of its class.

    Args:
        bank: (n, L) bool, the remembered sets.
        theirs: (n,) int64, the classes of their images.
        labels: (B,) int64.
        keep: (B,) int64 tokens wanted; 0 takes any number.
        seeds: one a row.

    Returns:
        (B, L) bool.

    Raises:
        UsageError: no set, of any class, has so many tokens.
    """
    wanted = keep[:, None]
    fits = (bank.sum(axis=1) == wanted) | (wanted == 0)  # (B, n)
    if not len(bank) or not fits.any(axis=1).all():
        raise UsageError(
            "the generator remembers no training image with so many kept tokens; it was exported before it was "
            "trained, or give another count"
        )
    same_class = fits & (theirs == labels[:, None])
    fits = np.where(same_class.any(axis=1, keepdims=True), same_class, fits)
    number = fits.sum(axis=1, keepdims=True)
    turn = (row_uniform(layout_seeds(seeds), 1) * number.astype(np.float32)).astype(np.int64)  # (B, 1)
    return bank[(fits.cumsum(axis=1) <= turn).sum(axis=1)]
