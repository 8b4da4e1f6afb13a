"""Where the tokens of a rand_ar image begin.

The model gives tokens at given positions, p(x | P); a sample needs P first. Training images of the class
are an exact source of them: one is drawn, and only the set of positions at which its tokens began
is taken from it.

Legend: B rows, L positions, n remembered sets.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mergevq.errors import UsageError
from mergevq.generation.sampling import row_noise
from mergevq.generation.settings import layout_seeds
from mergevq.models.generators.autoregressive import Generator


def draw_layouts(
    model: Generator, labels: torch.Tensor, keep: torch.Tensor, seeds: Sequence[int]
) -> torch.Tensor:
    """A set of first positions for each row, from the training images of its class.

    Args:
        model: of kind rand_ar.
        labels: (B,) int64.
        keep: (B,) int64 tokens wanted; 0 takes any number.
        seeds: one a row.

    Returns:
        (B, L) bool.

    Raises:
        UsageError: the model remembers no set, of any class, with so many tokens.
    """
    bank, theirs = model.layout_positions, model.layout_labels
    sizes = bank.sum(dim=1)
    wanted = keep.unsqueeze(1)
    fits = (sizes == wanted) | (wanted == 0)  # (B, n)
    if not len(bank) or not bool(fits.any(dim=1).all()):
        raise UsageError(
            "the generator remembers no training image with so many kept tokens; it was saved before it was "
            "trained, or give another count"
        )
    same_class = fits & (theirs == labels.unsqueeze(1))
    fits = torch.where(same_class.any(dim=1, keepdim=True), same_class, fits)
    uniform = row_noise(layout_seeds(seeds), 1).to(bank.device)  # (B, 1)
    chosen = (fits.cumsum(dim=1) <= (uniform * fits.sum(dim=1, keepdim=True)).long()).sum(dim=1)
    return bank[chosen]
