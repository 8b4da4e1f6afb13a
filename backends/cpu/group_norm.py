"""GroupNorm on the CPU as a factor and a summand for each channel, for whoever applies them in passing.

Legend: B batch, C channels, G groups, P pieces of a picture, h w resolution.
"""

from __future__ import annotations

import torch

_PIECE = 1024
"""Pixels whose moments are summed in float32: they stay in the caches, and so few sum accurately."""


def channel_affine(
    x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor, groups: int, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The factors and summands that GroupNorm comes to, from one pass through the memory.

    Pieces and groups are combined in float64: neither a large mean nor many pixels cost accuracy.

    Args:
        x: (B, h, w, C) float32, contiguous.
        scale: (C,), of the normalisation.
        shift: (C,), of the normalisation.
        groups: G; divides C.
        eps: added to the variance.

    Returns:
        (B, C) factors and (B, C) summands.
    """
    of_images = [_moments(image, groups) for image in x.flatten(1, 2)]
    mean, variance = (torch.stack(values) for values in zip(*of_images, strict=True))  # (B, G, 1)
    factor = scale.view(groups, -1) * (variance + eps).rsqrt()  # (B, G, C/G)
    summand = shift.view(groups, -1) - mean * factor
    return factor.flatten(1).float(), summand.flatten(1).float()


def _moments(pixels: torch.Tensor, groups: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance of each group of (h w, C) pixels: (G, 1) each, in float64."""
    pieces = pixels.split(_PIECE)
    moments = (torch.batch_norm_update_stats(piece, None, None, 0.0) for piece in pieces)
    mean, variance = (
        torch.stack(values).double().unflatten(1, (groups, -1))  # (P, G, C/G)
        for values in zip(*moments, strict=True)
    )
    share = torch.tensor([len(piece) for piece in pieces], dtype=torch.float64).view(-1, 1, 1)
    share /= len(pixels) * mean.shape[2]
    centre = (share * mean).sum(dim=(0, 2)).unsqueeze(-1)
    spread = (share * (variance + (mean - centre).square())).sum(dim=(0, 2)).unsqueeze(-1)
    return centre, spread
