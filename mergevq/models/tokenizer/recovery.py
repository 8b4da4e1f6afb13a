"""Source recovery: from the kept codes alone, which of them covers each position.

Legend: B batch, K kept tokens, d code bits, h w grid, L = h*w positions, D width, M heads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from mergevq.backends import sized_attention
from mergevq.config import RecoveryConfig
from mergevq.models.layers import Mlp, SelfAttention
from mergevq.models.tokenizer.position import grid_code, sincos

_COUNT_FEATURES = 64


class CrossAttention(nn.Module):
    """Multi-head attention from positions to kept tokens."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        """(B, L, D) positions and (B, K, D) tokens to (B, L, D)."""
        query = self.query(x).unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, M, L, E)
        key, value = self.key_value(memory).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.out(sized_attention(query, key, value, None).transpose(1, 2).flatten(2))


class RecoveryBlock(nn.Module):
    """A pre-norm Transformer decoder block: self-attention, cross-attention, MLP."""

    def __init__(self, config: RecoveryConfig):
        super().__init__()
        width = config.width
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.attention = SelfAttention(width, config.heads)
        self.cross = CrossAttention(width, config.heads)
        self.mlp = Mlp(width, int(width * config.mlp_ratio))

    def forward(self, x: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        """(B, L, D) positions and (B, K, D) tokens to (B, L, D)."""
        x = x + self.attention(self.norm1(x), None)[0]
        x = x + self.cross(self.norm2(x), memory)
        return x + self.mlp(self.norm3(x))


class SourceRecovery(nn.Module):
    """Classifies each position into the token that covers it.

    L learned queries pass through Transformer decoder blocks over the codes; the answer is the
    scaled product of query and token, softmax over the tokens.

    Source: MergeVQ (arXiv:2504.00999), Section 3.2, Eq. 8 and Table A2.
    Differs: tokens carry their rank in the canonical order and queries the kept count, since both
    are known when tokens are generated; and token k is never offered to a position before k, where it
    cannot occur (the k-th cluster in order of first positions starts at position k or later).
    """

    def __init__(self, config: RecoveryConfig, bits: int, grid: int):
        super().__init__()
        width = config.width
        self.queries = nn.Parameter(torch.randn(width, grid, grid) * 0.02)
        self.count = nn.Linear(_COUNT_FEATURES, width)
        self.embed = nn.Linear(bits, width)
        self.blocks = nn.ModuleList(RecoveryBlock(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, width)

    def forward(self, codes: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Scores every token for every position.

        Args:
            codes: (B, K, d) in {-1, 1}, in canonical order.
            grid: (h, w), with h*w >= K.

        Returns:
            (B, L, K) float32 logits; minus infinity where a token cannot cover a position.
        """
        batch, keep, _ = codes.shape
        length = grid[0] * grid[1]
        dtype = self.queries.dtype  # of the weights, whatever codes and positions come in
        memory = self.embed(codes.to(dtype)) + self._ranks(keep, grid, codes.device).to(dtype)  # (B, K, D)
        x = self._queries(keep, grid).expand(batch, -1, -1)  # (B, L, D)
        for block in self.blocks:
            x = block(x, memory)
        with torch.autocast(x.device.type, enabled=False):
            query = self.project(self.norm(x.to(dtype))).float()
            logits = query @ memory.float().transpose(1, 2) / query.shape[-1] ** 0.5
        positions = torch.arange(length, device=codes.device)
        possible = positions[:keep] <= positions.unsqueeze(-1)  # (L, K)
        return logits.masked_fill(~possible, float("-inf"))

    def _queries(self, keep: int, grid: tuple[int, int]) -> torch.Tensor:
        """(L, D): learned queries at this resolution, told the position and how many tokens there are."""
        learned: torch.Tensor = self.queries
        if tuple(learned.shape[1:]) != grid:
            learned = F.interpolate(learned[None], grid, mode="bilinear", align_corners=False)[0]
        fraction = torch.full((1,), 1000.0 * keep / (grid[0] * grid[1]), device=learned.device)
        code = grid_code(*grid, learned.shape[0], learned.device).to(learned.dtype)
        count = sincos(fraction, _COUNT_FEATURES).to(learned.dtype)
        return learned.flatten(1).T + code + self.count(count)

    def _ranks(self, keep: int, grid: tuple[int, int], device: torch.device) -> torch.Tensor:
        """(K, D): where in the canonical order a token stands, and where that would be on the grid."""
        rank = torch.arange(keep, device=device)
        width = self.embed.out_features
        expected = rank * (grid[0] * grid[1]) / keep
        row, column = (expected / grid[1]).floor(), expected % grid[1]
        codes = [sincos(rank, width // 2), sincos(row, width // 4), sincos(column, width // 4)]
        return torch.cat(codes, dim=-1)
