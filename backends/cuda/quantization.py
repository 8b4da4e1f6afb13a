"""The entropies of look-up free quantisation on NVIDIA GPUs, with the distributions of the half-codes fused.

What is left to PyTorch is the product of the two distributions, which is a plain matrix product, and what
concerns 2^d numbers or n d of them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from mergevq.backends.cuda.checks import FLOATS, runs_triton
from mergevq.backends.quantization import lfq_entropies
from mergevq.backends.registry import Reject, Verdict

Reduce = Callable[[torch.Tensor], torch.Tensor]

_BITS = (2, 24)
"""A half-code of twelve bits is 4,096 wide, the widest row that a program holds."""


def _factorises(z: torch.Tensor, temperature: float, reduce: Reduce | None = None) -> Verdict:
    if z.dtype not in FLOATS:
        return Reject(f"{z.dtype}, at most 32 bits are needed")
    if not _BITS[0] <= z.shape[-1] <= _BITS[1]:
        return Reject(f"{z.shape[-1]} bits, from {_BITS[0]} to {_BITS[1]} are taken")
    return runs_triton(z)


@lfq_entropies.impl("cuda", name="triton", when=_factorises, on_request=True)
def lfq_entropies_triton(
    z: torch.Tensor, temperature: float, reduce: Reduce | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """`lfq_entropies` with each half-code's distribution written once, and recomputed for its gradient."""
    from mergevq.backends.cuda.triton_lfq import half_distribution

    with torch.autocast(z.device.type, enabled=False):
        logits = 4 * z.reshape(-1, z.shape[-1]).float() / temperature  # (n, d)
        sample = (F.softplus(logits) - logits * logits.sigmoid()).sum(dim=-1).mean()
        left, right = logits.split([logits.shape[-1] - logits.shape[-1] // 2, logits.shape[-1] // 2], dim=-1)
        mean = half_distribution(left).T @ half_distribution(right) / logits.shape[0]
        mean = mean if reduce is None else reduce(mean)
        codebook = -(mean * mean.clamp_min(torch.finfo(mean.dtype).tiny).log()).sum()
    return sample, codebook
