"""The source recovery loss: logits over the kept tokens for each position, and the true source, in.

B batch, L positions, K kept tokens. Logits may hold -inf where a token cannot cover a position (token k
covers no position before the k-th); losses and gradients stay finite as long as the true token's is finite.
"""

from __future__ import annotations

import typing
from typing import Literal

import torch
import torch.nn.functional as F

from mergevq.errors import UsageError, unknown_name

SourceKind = Literal["softmax", "binary"]


def source_loss(logits: torch.Tensor, source: torch.Tensor, kind: SourceKind = "softmax") -> torch.Tensor:
    """How badly the predicted source matrix fits the true one, averaged over positions, in float32.

    Args:
        logits: (B, L, K), -inf where a token cannot cover a position.
        source: (B, L) int64 in [0, K), the token that covers each position.
        kind: "softmax" is the positive part of Eq. 9, the cross-entropy over the K tokens of a position;
            "binary" is Eq. 9 in full, on the same softmax.

    Returns:
        A scalar.

    Raises:
        UsageError: the shapes do not fit, or the kind is unknown.

    Source: MergeVQ (arXiv:2504.00999), Eq. 9.
    Differs: the sum over positions is a mean, so that the weight does not depend on the resolution.
    """
    _check_shapes(logits, source)
    if kind == "softmax":
        return F.cross_entropy(logits.float().flatten(0, 1), source.flatten())
    if kind == "binary":
        return _binary(logits.float(), source).mean()
    raise UsageError(unknown_name("source loss", kind, typing.get_args(SourceKind)))


def source_accuracy(logits: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """The share of positions whose most likely token is the true one.

    Args:
        logits: (B, L, K).
        source: (B, L) int64 in [0, K).

    Returns:
        A float32 scalar in [0, 1], without gradient.

    Raises:
        UsageError: the shapes do not fit.
    """
    _check_shapes(logits, source)
    return (logits.argmax(dim=-1) == source).float().mean()


def _binary(logits: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """Eq. 9 for each position, without ever taking the logarithm of a difference that cancels.

    log(1 - p) is safe through log1p while p <= 1/2, which only the largest p of a position can exceed. Its
    1 - p is the sum of the other probabilities, so its logarithm is their log-sum-exp. Both terms are only
    wanted for tokens other than the true one.
    """
    log_p = F.log_softmax(logits, dim=-1)
    tokens = torch.arange(logits.shape[-1], device=logits.device)
    true = source.unsqueeze(-1)  # (B, L, 1)
    largest = log_p.argmax(dim=-1, keepdim=True)  # (B, L, 1)
    positive = log_p.gather(-1, true).squeeze(-1)  # (B, L)
    small = log_p.exp().masked_fill((tokens == largest) | (tokens == true), 0.0)
    negatives = torch.log1p(-small).sum(dim=-1)  # (B, L)
    # Where the largest is the true token nothing is filled, and the log-sum-exp of all is a constant zero.
    wrong_largest = (tokens == largest) & (largest != true)
    negatives = negatives + log_p.masked_fill(wrong_largest, float("-inf")).logsumexp(dim=-1)
    return -(positive + negatives)


def _check_shapes(logits: torch.Tensor, source: torch.Tensor) -> None:
    if logits.dim() != 3 or logits.shape[:2] != source.shape:
        raise UsageError(
            f"source logits are {tuple(logits.shape)} and the source {tuple(source.shape)}; "
            "they must be (B, L, K) and (B, L)"
        )
