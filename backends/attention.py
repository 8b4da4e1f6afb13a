"""Attention over tokens that stand for several positions each.

Legend: B batch, M heads, T tokens, E head width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from mergevq.backends.registry import op


def _example(device: torch.device) -> tuple:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 3, 10, 16, generator=generator).to(device) for _ in range(3))
    return query, key, value, torch.arange(1.0, 11.0).log().expand(2, 10).to(device)


@op("sized_attention", example=_example)
def sized_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, log_size: torch.Tensor | None
) -> torch.Tensor:
    """Attention in which a key counts as often as the positions that its token stands for.

    softmax(Q K^T / sqrt(E) + log s) V.

    Args:
        query: (B, M, T, E).
        key: (B, M, T, E).
        value: (B, M, T, E).
        log_size: (B, T), the logarithm of each token's size; None where every size is one.

    Returns:
        (B, M, T, E) in the dtype of `query`.

    Source: MergeVQ (arXiv:2504.00999), Eq. 14.
    """
    bias = None if log_size is None else log_size[:, None, None, :].to(query.dtype)  # (B, 1, 1, T)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
