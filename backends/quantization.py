"""Look-up free quantisation: signs, indices, and exact entropies of the implied code distribution.

Legend: n tokens, d code bits. Bit i of an index is dimension i (little-endian).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from mergevq.backends.registry import op


def _example(device: torch.device) -> tuple:
    return (torch.linspace(-1, 1, 2 * 5 * 6, device=device).reshape(2, 5, 6),)


@op("lfq_quantize", example=_example)
def lfq_quantize(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The nearest corner of the cube {-1, 1}^d, with a straight-through gradient, and its index.

    Args:
        z: (..., d), any real values; exactly 0 becomes -1.

    Returns:
        codes: (..., d), exactly -1 or 1, with d codes / d z = 1.
        indices: (...) int64, the sum of 2^i over the dimensions i with a positive code.

    Source: MergeVQ (arXiv:2504.00999), Eq. 4; LFQ (arXiv:2310.05737), Eq. 3 and 4.
    """
    positive = z > 0
    # z - z.detach() is exactly zero: adding it passes the gradient and leaves the codes exact.
    codes = torch.where(positive, 1.0, -1.0).to(z.dtype) + (z - z.detach())
    return codes, (positive.long() * powers(z.shape[-1], z.device)).sum(dim=-1)


def powers(bits: int, device: torch.device) -> torch.Tensor:
    """(bits,) int64: the weight of each bit in an index."""
    return 2 ** torch.arange(bits, device=device)


def codes_of(indices: torch.Tensor, bits: int) -> torch.Tensor:
    """(..., bits) float32 in {-1, 1}: the inverse of the indices of `lfq_quantize`."""
    # Integer division and remainder: shifts do not export to ONNX.
    return (indices.unsqueeze(-1) // powers(bits, indices.device) % 2 * 2 - 1).float()


@op("lfq_entropies", example=lambda device: (*_example(device), 0.5))
def lfq_entropies(
    z: torch.Tensor,
    temperature: float,
    reduce: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The two entropies of p(c | z) = softmax_c(2 z.c / temperature) over all 2^d codes c, exactly.

    p factorises over the bits, so that the mean of H(p) is a sum of binary entropies, and the mean
    of p over tokens is the matrix product of the distributions of two half-codes: memory is
    n * 2^(d/2), never n * 2^d.

    Args:
        z: (..., d); computed in float32 whatever the autocast, or in float64 if given so.
        temperature: tau > 0.
        reduce: maps this rank's mean distribution to the mean over all ranks.

    Returns:
        The mean of the entropies, and the entropy of the mean, both 0-dim, in nats.

    Source: LFQ (arXiv:2310.05737), Eq. 5; the factorisation is this project's.
    """
    with torch.autocast(z.device.type, enabled=False):
        z = z.reshape(-1, z.shape[-1])  # (n, d)
        z = z if z.dtype == torch.float64 else z.float()
        logits = 4 * z / temperature
        sample = (F.softplus(logits) - logits * logits.sigmoid()).sum(dim=-1).mean()
        left, right = z.split([z.shape[-1] - z.shape[-1] // 2, z.shape[-1] // 2], dim=-1)
        mean = _half_distribution(left, temperature).T @ _half_distribution(right, temperature) / z.shape[0]
        mean = mean if reduce is None else reduce(mean)
        # A code of probability 0 contributes 0, and a finite slope.
        codebook = -(mean * mean.clamp_min(torch.finfo(mean.dtype).tiny).log()).sum()
    return sample, codebook


def _half_distribution(z: torch.Tensor, temperature: float) -> torch.Tensor:
    """(n, 2^b): the distribution over the codes of a few bits."""
    codebook = codes_of(torch.arange(2 ** z.shape[-1], device=z.device), z.shape[-1]).to(z.dtype)
    distribution = (2 * z @ codebook.T / temperature).softmax(dim=-1)
    # A product of two smaller probabilities would be subnormal, which makes matrix products on a CPU
    # many times slower; what is dropped is far below the rounding of the sum.
    return F.threshold(distribution, torch.finfo(z.dtype).tiny ** 0.5, 0.0)
