"""Merging on the CPU: sorts and additions into place, which cost less there than comparing all pairs."""

from __future__ import annotations

import torch

from mergevq.backends.merging import bipartite_match, merge, similarities, slots


@merge.impl("cpu", name="scatter_add")
def merge_scatter(
    x: torch.Tensor, size: torch.Tensor, assign: torch.Tensor, length: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """`merge` by one scatter-add over the flattened batch, (T / length) D additions a token."""
    batch, _, width = x.shape
    offset = torch.arange(batch, device=x.device).unsqueeze(-1) * length
    slot = (assign + offset).reshape(-1)  # (B T)
    size = size.float().unsqueeze(-1)
    total = x.new_zeros(batch * length, dtype=torch.float32).scatter_add(0, slot, size.reshape(-1))
    # PyTorch has a fast path for a row index that is expanded over the columns.
    rows = slot.unsqueeze(-1).expand(-1, width)
    summed = x.new_zeros(batch * length, width, dtype=torch.float32)
    summed = summed.scatter_add(0, rows, (x.float() * size).reshape(-1, width))
    merged = (summed / total.unsqueeze(-1)).view(batch, length, width)
    return merged.to(x.dtype), total.view(batch, length)


@bipartite_match.impl("cpu", name="sort")
def bipartite_match_sort(metric: torch.Tensor, merges: int, protected: int = 0) -> torch.Tensor:
    """`bipartite_match` by one sort of the proposals: the same result, ties included.

    On the CPU `max` returns the first of equal values and a sort can be stable; both are documented.
    """
    even, odd, scores = similarities(metric, protected)
    best, partner = scores.max(dim=-1)  # (B, even)
    chosen = best.sort(dim=-1, descending=True, stable=True).indices[:, :merges]  # (B, merges)
    joined = partner.gather(1, chosen)
    odd_leader = odd.repeat(len(metric), 1).scatter_reduce(1, joined, 2 * chosen, "amin")
    even_leader = even.repeat(len(metric), 1).scatter(1, chosen, odd_leader.gather(1, joined))
    return slots(even_leader, odd_leader, protected)
