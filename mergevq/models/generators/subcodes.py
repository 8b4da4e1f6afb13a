"""Codes in parts: a vocabulary of 2^18 as two of 2^9, the second predicted from the first.

Legend: B batch, N tokens, D width, d code bits, P sub-codes of a code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from mergevq.models.generators.transformer import GrowingCache, LayerCache, RMSNorm, Rotation, Transformer

Choose = Callable[[torch.Tensor, int], torch.Tensor]
"""From (R, 2^bits) float32 logits and the number of the sub-code to (R,) int64 choices."""


def split_code(indices: torch.Tensor, split: Sequence[int]) -> list[torch.Tensor]:
    """(...) int64 codes to one (...) tensor a sub-code, the lowest bits first."""
    parts, offset = [], 0
    for bits in split:
        # Integer division and remainder: shifts do not export to ONNX.
        parts.append(indices // 2**offset % 2**bits)
        offset += bits
    return parts


def join_code(parts: Sequence[torch.Tensor], split: Sequence[int]) -> torch.Tensor:
    """The inverse of `split_code`."""
    joined, offset = torch.zeros_like(parts[0]), 0
    for part, bits in zip(parts, split, strict=True):
        joined = joined | (part << offset)
        offset += bits
    return joined


class SubcodeEmbedding(nn.Module):
    """A code's embedding is the sum of those of its sub-codes."""

    def __init__(self, split: Sequence[int], width: int):
        super().__init__()
        self.split = tuple(split)
        self.tables = nn.ModuleList(nn.Embedding(2**bits, width) for bits in split)

    def forward(self, indices: torch.Tensor) -> torch.Tensor:
        """(...) int64 codes to (..., D)."""
        parts = split_code(indices, self.split)
        embedded = [table(part) for table, part in zip(self.tables, parts, strict=True)]
        return torch.stack(embedded).sum(dim=0)


class SubcodeHead(nn.Module):
    """A small causal Transformer that predicts a token's sub-codes one after another.

    It reads the backbone's output, then the embedding of each sub-code as it becomes known. With one
    sub-code it is a norm and a linear layer, and the generator is LlamaGen's.

    Source: Open-MAGVIT2 (arXiv:2409.04410), Section 3.2, "intra-block".

    Differs: nothing is rotated unless `rotation` is "zero". Their code gives the context the rotation of its class,
    which is all zeros, and the sub-codes that of the first position, which turns nothing: so the context's query and
    key vanish, and a later sub-code gives it the same weight whatever it holds.
    """

    def __init__(
        self,
        split: Sequence[int],
        width: int,
        heads: int,
        hidden: int,
        depth: int,
        dropout: float,
        rotation: str = "identity",
    ):
        super().__init__()
        self.split = tuple(split)
        self.head_width = width // heads
        self.rotation = rotation
        depth = depth if len(self.split) > 1 else 0
        self.transformer = Transformer(depth, width, heads, hidden, dropout)
        self.norm = RMSNorm(width)
        self.outputs = nn.ModuleList(nn.Linear(width, 2**bits, bias=False) for bits in split)

    def forward(
        self, context: torch.Tensor, indices: torch.Tensor, embedding: SubcodeEmbedding
    ) -> list[torch.Tensor]:
        """Scores every sub-code given the true ones before it.

        Args:
            context: (B, N, D), the backbone's output for each token.
            indices: (B, N) int64, the tokens themselves.
            embedding: the generator's table of sub-codes.

        Returns:
            P tensors of float32 logits, (B, N, 2^bits).
        """
        known = [
            table(part)
            for table, part in zip(embedding.tables, split_code(indices, self.split)[:-1], strict=False)
        ]
        sequence = torch.stack([context, *known], dim=2).flatten(0, 1)  # (B N, P, D)
        hidden = self.transform(sequence).unflatten(0, context.shape[:2])
        return [self.logits(hidden[:, :, part], part) for part in range(len(self.split))]

    def transform(
        self, x: torch.Tensor, first: int = 0, caches: Sequence[LayerCache] | None = None
    ) -> torch.Tensor:
        """The small Transformer's output.

        Args:
            x: (R, T, D): the context, then embeddings of sub-codes; or the newest of them.
            first: which of them x begins with, 0 being the context.
            caches: where x is the newest.

        Returns:
            (R, T, D).
        """
        rotation = None
        if self.rotation == "zero":
            turned = torch.arange(first, first + x.shape[1], device=x.device).clamp_max(1).float()
            cosine = turned.view(1, -1, 1).expand(-1, -1, self.head_width // 2)
            rotation = Rotation(cosine, torch.zeros_like(cosine))
        return self.transformer(x, rotation, None, caches)

    def sample(
        self,
        context: torch.Tensor,
        embedding: SubcodeEmbedding,
        choose: Choose,
    ) -> torch.Tensor:
        """Chooses a code part by part.

        Args:
            context: (B, D), the backbone's output.
            embedding: the generator's table of sub-codes.
            choose: from (B, 2^bits) float32 logits and the number of the part to (B,) int64 sub-codes.

        Returns:
            (B,) int64 codes.
        """
        caches = [GrowingCache() for _ in self.transformer.blocks]
        parts: list[torch.Tensor] = []
        x = context
        for part in range(len(self.split)):
            hidden = self.transform(x.unsqueeze(1), part, caches).squeeze(1)
            parts.append(choose(self.logits(hidden, part), part))
            x = embedding.tables[part](parts[part])
        return join_code(parts, self.split)

    def logits(self, hidden: torch.Tensor, part: int) -> torch.Tensor:
        """(..., D) to (..., 2^bits) scores of sub-code `part`, in float32 under any autocast and dtype."""
        output = self.outputs[part]
        assert isinstance(output, nn.Linear)
        with torch.autocast(hidden.device.type, enabled=False):
            return nn.functional.linear(self.norm(hidden.float()), output.weight.float())
