"""Attention over tokens that stand for several positions each, and over a cache of keys and values.

Legend: B batch, M heads, T tokens, S cached tokens, E head width.
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


def _decode_example(device: torch.device) -> tuple:
    query, key, value, _ = _example(device)
    valid = torch.arange(10, device=device) < torch.tensor([[7], [10]], device=device)
    return query[:, :, :1], key, value, valid.unsqueeze(1)


@op("decode_attention", example=_decode_example)
def decode_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, valid: torch.Tensor | None
) -> torch.Tensor:
    """Attention of the newest tokens to a cache in which each row may hold another number of tokens.

    Args:
        query: (B, M, T, E).
        key: (B, M, S, E), slots without a token included, which must be finite; may be a view of a larger buffer.
        value: (B, M, S, E).
        valid: (1 or B, 1 or T, S) bool, the slots that each query sees, at least one each; None: all.

    Returns:
        (B, M, T, E) in the dtype of `query`.
    """
    mask = None if valid is None else valid.unsqueeze(1)  # (B, 1, T, S)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
