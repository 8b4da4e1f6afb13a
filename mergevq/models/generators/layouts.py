"""What a generator reads and who sees whom: the one thing in which the three kinds differ.

    raster     [class, x_1, ..., x_{L-1}]                        predicts x_1 ... x_L
    merge_ar   [class, instruction, x_1, ..., x_{L-1}]           predicts x_1 ... x_L
    rand_ar    [class, P_1, x_1, P_2, x_2, ..., P_K]             predicts x_i at P_i, in any order

Legend: B batch, N tokens, T length of the sequence, D width, L positions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch


class Layout(NamedTuple):
    """A sequence for the Transformer."""

    x: torch.Tensor
    """(B, T, D)."""
    positions: torch.Tensor
    """(B, T) int64 raster positions; L for the prefix, which has none."""
    mask: torch.Tensor | None
    """(B, T, T) bool, or None for plain causal attention."""
    outputs: slice
    """Where along T the N predictions stand."""


def raster(prefix: torch.Tensor, tokens: torch.Tensor, length: int) -> Layout:
    """Tokens after their prefix, every one in the context of all that follow.

    Args:
        prefix: (B, p, D).
        tokens: (B, N, D) embeddings in raster order from position 0.
        length: L.

    Source: LlamaGen (arXiv:2406.06525), Section 3.1.
    """
    batch, lead = prefix.shape[:2]
    x = torch.cat([prefix, tokens[:, :-1]], dim=1)  # (B, p + N - 1, D)
    raster_order = torch.arange(tokens.shape[1] - 1, device=x.device).expand(batch, -1)
    positions = torch.cat([raster_order.new_full((batch, lead), length), raster_order], dim=1)
    return Layout(x, positions, None, slice(lead - 1, None))


def merge_ar(
    prefix: torch.Tensor, tokens: torch.Tensor, indices: torch.Tensor, length: int, window: int
) -> Layout:
    """The same sequence, in which duplicates are seen only for as long as they are recent.

    Args:
        prefix: (B, 2, D), class and merge instruction.
        tokens: (B, N, D) embeddings in raster order.
        indices: (B, N) int64, the tokens.
        length: L.
        window: query i sees token j if j is the first of its code or i - j < window.

    Source: MergeVQ (arXiv:2504.00999), Section 4.1, Eq. 12 and Figure 6.
    """
    layout = raster(prefix, tokens, length)
    lead = prefix.shape[1]
    order = torch.arange(layout.x.shape[1], device=tokens.device)
    age = order.unsqueeze(1) - order  # (T, T), query less key
    first = first_occurrences(indices[:, :-1])
    kept = torch.cat([first.new_ones(first.shape[0], lead), first], dim=1)  # (B, T)
    mask = (age >= 0) & (kept.unsqueeze(1) | (age < window))  # (B, T, T)
    return layout._replace(mask=mask)


def rand_ar(
    prefix: torch.Tensor, questions: torch.Tensor, tokens: torch.Tensor, positions: torch.Tensor, length: int
) -> Layout:
    """Position instruction and token by turns.

    Args:
        prefix: (B, 1, D), the class.
        questions: (B, N, D) position instructions P in the order of generation.
        tokens: (B, N, D) embeddings in that order.
        positions: (B, N) int64, the raster position of each.
        length: L.

    Source: RandAR (arXiv:2412.01827), Section 3.1; MergeVQ (arXiv:2504.00999), Eq. 13.
    """
    pairs = torch.stack([questions, tokens], dim=2).flatten(1, 2)[:, :-1]  # (B, 2N - 1, D)
    lead = positions.new_full((positions.shape[0], 1), length)
    turned = torch.cat([lead, positions.repeat_interleave(2, dim=1)[:, :-1]], dim=1)
    return Layout(torch.cat([prefix, pairs], dim=1), turned, None, slice(1, None, 2))


def first_occurrences(indices: torch.Tensor) -> torch.Tensor:
    """Which tokens have a code that no earlier token of their row has.

    Args:
        indices: (B, N) int64.

    Returns:
        (B, N) bool.
    """
    # By comparing all pairs, which is no more than the mask holds: not every device sorts integers well.
    alike = indices.unsqueeze(2) == indices.unsqueeze(1)  # (B, N, N)
    return ~alike.tril(diagonal=-1).any(dim=2)
