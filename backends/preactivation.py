"""Half of a residual block: normalisation and activation before a convolution.

Legend: B batch, C channels in, O channels out, h w resolution.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from mergevq.backends.registry import op


def _example(device: torch.device) -> tuple:
    generator = torch.Generator().manual_seed(0)
    x, residual = (torch.randn(1, 64, 64, 64, generator=generator).to(device) for _ in range(2))
    scale, shift = (torch.randn(64, generator=generator).to(device) for _ in range(2))
    weight = torch.randn(64, 64, 3, 3, generator=generator).to(device) / 64
    return x, scale, shift, 32, 1e-6, weight, None, residual


@op("preactivated_convolution3x3", example=_example)
def preactivated_convolution3x3(
    x: torch.Tensor,
    scale: torch.Tensor,
    shift: torch.Tensor,
    groups: int,
    eps: float,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    consume: bool = False,
) -> torch.Tensor:
    """GroupNorm, SiLU and a 3x3 convolution over a picture with a border of one zero, beside a residual.

    Args:
        x: (B, C, h, w), in any memory format; the result may have another.
        scale: (C,), of the normalisation.
        shift: (C,), of the normalisation.
        groups: of channels; divides C.
        eps: added to the variance.
        weight: (O, C, 3, 3).
        bias: (O,), or None.
        residual: (B, O, h, w), added to the convolution, or None.
        consume: whether the result may be written over `x` where no gradient is wanted: `x` is nobody's
            afterwards, and `residual` lies elsewhere.

    Returns:
        (B, O, h, w).

    Source: the order of the layers is that of He et al. (arXiv:1603.05027), Figure 1b.
    """
    hidden = F.group_norm(x, groups, scale, shift, eps)
    hidden = F.silu(hidden, inplace=not torch.is_grad_enabled())
    hidden = F.conv2d(hidden, weight, bias, padding=1)
    return hidden if residual is None else residual + hidden
