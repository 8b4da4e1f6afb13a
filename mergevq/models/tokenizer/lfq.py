"""Look-up free quantisation of the kept tokens.

Legend: B batch, K kept tokens, D width, d code bits.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from mergevq.backends import codes_of, lfq_entropies, lfq_quantize


class Quantized(NamedTuple):
    """Codes and what the losses need of them."""

    z: torch.Tensor
    """(B, K, d) before the sign."""
    codes: torch.Tensor
    """(B, K, d) in {-1, 1}, with a straight-through gradient to z."""
    indices: torch.Tensor
    """(B, K) int64 in [0, 2^d)."""


class Quantizer(nn.Module):
    """Norm, SiLU, projection to d dimensions, sign.

    Differs: LayerNorm, for each token alone, where the authors' code has GroupNorm with 32 groups whose
    statistics are of all kept tokens of an image, however many positions each covers: there a token's code
    depends on what the others are, and on their number.
    """

    def __init__(self, width: int, bits: int):
        super().__init__()
        self.bits = bits
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, bits)

    def forward(self, tokens: torch.Tensor) -> Quantized:
        """(B, K, D) tokens to codes."""
        z = self.project(F.silu(self.norm(tokens))).float()
        codes, indices = lfq_quantize(z)
        return Quantized(z, codes, indices)

    def codes(self, indices: torch.Tensor) -> torch.Tensor:
        """(B, K) indices to (B, K, d) codes."""
        return codes_of(indices, self.bits)


def entropies(z: torch.Tensor, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean entropy of a token's code distribution, and the entropy of the mean distribution.

    With several ranks the second is over the tokens of all of them; the first is this rank's mean, whose
    average over ranks is the whole one. Averaging the gradients over ranks, as DDP does, gives the
    gradient of the exact values. Every rank must hold equally many tokens.

    Not so over passes that are accumulated: each is over the tokens of its own pass, and the mean of their entropies
    is at most the entropy of the whole. The exact gradient needs the mean distribution of all passes before the first
    of them goes backwards, so that each would have to be encoded twice.

    Args:
        z: (..., d), before the sign.
        temperature: tau > 0 of softmax(2 z.c / tau).

    Returns:
        Two 0-dim float32 tensors, in nats; the second is at most d ln 2.

    Source: LFQ (arXiv:2310.05737), Eq. 5.
    """
    return lfq_entropies(z, temperature, _mean_over_ranks if _several_ranks() else None)


def commitment(quantized: Quantized) -> torch.Tensor:
    """The mean squared distance from z to its code, which pulls z and not the code."""
    return F.mse_loss(quantized.z, quantized.codes.detach())


def _several_ranks() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _mean_over_ranks(mean: torch.Tensor) -> torch.Tensor:
    everywhere = mean.detach().clone()
    dist.all_reduce(everywhere)
    return mean + (everywhere / dist.get_world_size() - mean).detach()
