"""ToMe attention: a Transformer block that merges similar tokens between its attention and its MLP.

Legend: B batch, L positions, T tokens at present (the class token first), D width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from mergevq.backends import bipartite_match, merge
from mergevq.models.layers import Mlp, SelfAttention
from mergevq.models.tokenizer.merge import follow


class MergeState(NamedTuple):
    """What travels through the blocks; nothing is kept in a module."""

    tokens: torch.Tensor
    """(B, T, D)."""
    size: torch.Tensor | None
    """(B, T) positions each token stands for; None where all are one."""
    source: torch.Tensor | None
    """(B, 1 + L) int64 slot of the class token and of each position; None before the first merge."""
    place: torch.Tensor | None = None
    """(B, T, P) where each token lies, in the measure of `nearness_code`; None where that does not count."""


class ToMeBlock(nn.Module):
    """Norm, attention, merge, norm, MLP, with residual connections and LayerScale.

    Source: MergeVQ (arXiv:2504.00999), Eq. 7 and Appendix A.1; ToMe (arXiv:2210.09461), Section 3.
    """

    def __init__(self, width: int, heads: int, mlp_ratio: float, layer_scale: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads)
        self.scale1 = nn.Parameter(torch.full((width,), layer_scale))
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.scale2 = nn.Parameter(torch.full((width,), layer_scale))

    def forward(self, state: MergeState, merges: int) -> MergeState:
        """Attends, merges `merges` pairs, and transforms what is left.

        Args:
            state: T tokens.
            merges: how many tokens disappear; the class token never does.

        Returns:
            T - merges tokens.
        """
        x, size, source, place = state
        attended, keys = self.attention(self.norm1(x), size)
        x = x + attended * self.scale1
        if merges:
            length = x.shape[1] - merges
            assign = bipartite_match(_metric(keys.detach(), place), merges, 1)
            ones = x.new_ones(x.shape[:2], dtype=torch.float32) if size is None else size
            if place is not None:
                place, _ = merge(place, ones, assign, length)
            x, size = merge(x, ones, assign, length)
            source = follow(source, assign)
        x = x + self.mlp(self.norm2(x)) * self.scale2
        return MergeState(x, size, source, place)


def _metric(keys: torch.Tensor, place: torch.Tensor | None) -> torch.Tensor:
    """What similarity is measured on: the keys, and beside them, where it counts, the place."""
    if place is None:
        return keys
    return torch.cat([F.normalize(keys.float(), dim=-1), place], dim=-1)
