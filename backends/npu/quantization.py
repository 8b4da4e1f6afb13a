"""Look-up free quantisation on an NPU.

`lfq_entropies` has no implementation of its own: its reference is float32 whatever the autocast, and made
of matrix products and elementwise functions that the NPU has kernels for.
"""

from __future__ import annotations

import torch

from mergevq.backends.quantization import lfq_quantize
from mergevq.backends.registry import OK, Reject, Verdict

_BITS = 31


def _fits_in_32_bits(z: torch.Tensor) -> Verdict:
    return OK if z.shape[-1] <= _BITS else Reject(f"{z.shape[-1]} bits, at most {_BITS} fit")


@lfq_quantize.impl("npu", name="int32", when=_fits_in_32_bits)
def lfq_quantize_int32(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`lfq_quantize` with its index added up in 32 bits: the vector unit is slow at 64."""
    positive = z > 0
    # z - z.detach() is exactly zero: adding it passes the gradient and leaves the codes exact.
    codes = torch.where(positive, 1.0, -1.0).to(z.dtype) + (z - z.detach())
    powers = 2 ** torch.arange(z.shape[-1], device=z.device, dtype=torch.int32)
    return codes, (positive.int() * powers).sum(dim=-1, dtype=torch.int32).long()
