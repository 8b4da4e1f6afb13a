"""The convolution that the CNN stages are made of.

Legend: B batch, C channels in, O channels out, h w resolution.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from mergevq.backends.registry import op


def _example(device: torch.device) -> tuple:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 128, 32, 32, generator=generator)
    weight = torch.randn(128, 128, 3, 3, generator=generator) / 128
    return image.to(device), weight.to(device), torch.randn(128, generator=generator).to(device)


@op("convolution3x3", example=_example)
def convolution3x3(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """A 3x3 convolution with stride 1 over a picture with a border of one zero.

    Args:
        x: (B, C, h, w), in any memory format; the result may have another.
        weight: (O, C, 3, 3).
        bias: (O,), or None.

    Returns:
        (B, O, h, w).
    """
    return F.conv2d(x, weight, bias, padding=1)
