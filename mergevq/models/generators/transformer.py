"""The decoder-only Transformer of the generators: RMSNorm, rotary attention, SwiGLU, no biases.

What attends to what is the caller's: a mask where whole sequences are seen at once, or a cache that
holds earlier keys and values where tokens come a few at a time.

Legend: B batch, M heads, T tokens, S cached tokens, E head width, D width, L positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import nn

from mergevq.backends import decode_attention, rms_norm, rope, swiglu

_EPS = 1e-5
_BASE = 10_000.0


class Rotation(NamedTuple):
    """Cosines and sines of rotary embedding, each (1 or B, T, E/2)."""

    cosine: torch.Tensor
    sine: torch.Tensor


class LayerCache(Protocol):
    """Keys and values that one layer has seen."""

    def store(self, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Takes in (B, M, T, E) new ones, and returns all that may be seen, (B, M, S, E) each."""
        ...


class GrowingCache:
    """A cache for a handful of tokens: each store makes a longer copy."""

    def __init__(self) -> None:
        self._seen: tuple[torch.Tensor, torch.Tensor] | None = None

    def store(self, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Appends (B, M, T, E) keys and values, and returns all of them."""
        if self._seen is not None:
            key = torch.cat([self._seen[0], key], dim=2)
            value = torch.cat([self._seen[1], value], dim=2)
        self._seen = key, value
        return self._seen


def grid_rotation(positions: torch.Tensor, grid: int, width: int, prefix: str) -> Rotation:
    """The rotation of raster positions: half of the pairs turns by the row, half by the column.

    Args:
        positions: (B, T) int64 in [0, L]; L stands for a token of the prefix.
        grid: positions a side.
        width: E, a multiple of 4.
        prefix: how the prefix turns: "identity", not at all; "zero", multiplied by zero, as LlamaGen does.

    Returns:
        (B, T, E/2) each, float32.

    Source: LlamaGen (arXiv:2406.06525), Section 3.1, "2D RoPE".
    """
    steps = torch.arange(width // 4, device=positions.device, dtype=torch.float32) / (width // 4)
    frequencies = _BASE**-steps  # (E/4,)
    placed = positions < grid**2
    row = torch.where(placed, positions // grid, 0).unsqueeze(-1) * frequencies
    column = torch.where(placed, positions % grid, 0).unsqueeze(-1) * frequencies
    angles = torch.cat([row, column], dim=-1)
    cosine, sine = angles.cos(), angles.sin()
    return Rotation(cosine if prefix == "identity" else cosine * placed.unsqueeze(-1), sine)


class RMSNorm(nn.Module):
    """Root-mean-square norm with a learned gain."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., D) to (..., D)."""
        return rms_norm(x, self.weight, _EPS)


class RotaryAttention(nn.Module):
    """Multi-head attention with rotated queries and keys, over a sequence or over a cache."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(
        self,
        x: torch.Tensor,
        rotation: Rotation | None,
        mask: torch.Tensor | None,
        cache: LayerCache | None,
    ) -> torch.Tensor:
        """(B, T, D) to (B, T, D); the arguments are those of `Transformer`."""
        both, value = (
            self.qkv(x)
            .unflatten(2, (3 * self.heads, -1))
            .transpose(1, 2)  # (B, 3 M, T, E)
            .split([2 * self.heads, self.heads], dim=1)
        )
        if rotation is not None:
            both = rope(both, *rotation)
        query, key = both.chunk(2, dim=1)
        if cache is None and mask is None:
            attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        else:
            if cache is not None:
                key, value = cache.store(key, value)
            attended = decode_attention(query, key, value, mask)
        joined = self.out(attended.transpose(1, 2).flatten(2))
        return F.dropout(joined, self.dropout, self.training)


class SwiGLU(nn.Module):
    """The gated MLP; gate and input come from one matrix."""

    def __init__(self, width: int, hidden: int, dropout: float):
        super().__init__()
        self.dropout = dropout
        self.up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., D) to (..., D)."""
        gate, up = self.up(x).chunk(2, dim=-1)
        return F.dropout(self.down(swiglu(gate, up)), self.dropout, self.training)


class TransformerBlock(nn.Module):
    """Norm, attention, norm, SwiGLU, with residual connections."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float):
        super().__init__()
        self.norm1 = RMSNorm(width)
        self.attention = RotaryAttention(width, heads, dropout)
        self.norm2 = RMSNorm(width)
        self.mlp = SwiGLU(width, hidden, dropout)

    def forward(
        self,
        x: torch.Tensor,
        rotation: Rotation | None,
        mask: torch.Tensor | None,
        cache: LayerCache | None,
    ) -> torch.Tensor:
        """(B, T, D) to (B, T, D); the arguments are those of `Transformer`."""
        x = x + self.attention(self.norm1(x), rotation, mask, cache)
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    """A stack of blocks, without embeddings, final norm or head.

    Source: LlamaGen (arXiv:2406.06525), Section 3.1; Llama (arXiv:2302.13971), Section 2.2.
    """

    def __init__(self, depth: int, width: int, heads: int, hidden: int, dropout: float):
        super().__init__()
        self.blocks = nn.ModuleList(TransformerBlock(width, heads, hidden, dropout) for _ in range(depth))

    def forward(
        self,
        x: torch.Tensor,
        rotation: Rotation | None,
        mask: torch.Tensor | None = None,
        caches: Sequence[LayerCache] | None = None,
    ) -> torch.Tensor:
        """Transforms a sequence, or the newest tokens of one.

        Args:
            x: (B, T, D).
            rotation: of the T tokens; None turns nothing.
            mask: (1 or B, 1 or T, S) bool, true where a token may look. None: without a cache every token
                sees itself and those before it, with one all that the cache returns.
            caches: one a block; None where x is the whole sequence, and then S = T.

        Returns:
            (B, T, D).
        """
        for number, block in enumerate(self.blocks):
            x = block(x, rotation, mask, None if caches is None else caches[number])
        return x
