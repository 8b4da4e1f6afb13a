"""PSNR and SSIM of pictures, one number an image.

uint8 batches (B, 3, H, W) in, float32 (B,) out. Both are defined on the 8-bit pictures that a user would
save, so a reconstruction has to be rounded and clamped first. A data set's figure is the mean of these
numbers: one PSNR over a whole batch is another, lower quantity.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from mergevq.errors import UsageError

PSNR_CAP = 100.0
"""Decibels given to identical pictures, whose PSNR has no finite value."""

WINDOW = 11
"""Pixels a side of the SSIM window; smaller pictures have no SSIM."""

_SIGMA = 1.5
_PEAK = 255.0


def psnr(images: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio of each image, over its pixels and channels.

    Args:
        images: (B, C, H, W) uint8.
        references: (B, C, H, W) uint8.

    Returns:
        (B,) decibels, at most `PSNR_CAP`.

    Raises:
        UsageError: the batches differ in shape or are not uint8.
    """
    _check_pair(images, references)
    difference = images.float() - references.float()
    error = difference.square().flatten(1).mean(1)  # (B,)
    return (10 * torch.log10(_PEAK**2 / error)).clamp(max=PSNR_CAP)


def ssim(images: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
    """Structural similarity of each image, the mean over its channels and whole windows.

    The window is a Gaussian of 11 x 11 pixels and standard deviation 1.5; positions where it would reach
    over the border are left out. Source: Wang et al. 2004 (doi:10.1109/TIP.2003.819861), Eq. 13.

    Args:
        images: (B, C, H, W) uint8, H and W at least `WINDOW`.
        references: (B, C, H, W) uint8.

    Returns:
        (B,) at most 1.

    Raises:
        UsageError: the batches differ in shape, are not uint8, or are smaller than the window.
    """
    _check_pair(images, references)
    if min(images.shape[-2:]) < WINDOW:
        height, width = images.shape[-2:]
        raise UsageError(f"SSIM needs pictures of {WINDOW} px or more a side; these are {height} x {width}")
    # Centred values keep E[x^2] - E[x]^2 accurate in float32.
    centre = _PEAK / 2
    x = images.flatten(0, 1).unsqueeze(1).float() - centre  # (B*C, 1, H, W)
    y = references.flatten(0, 1).unsqueeze(1).float() - centre
    mean_x, mean_y, xx, yy, xy = _smooth(torch.cat([x, y, x * x, y * y, x * y])).chunk(5)
    variances = (xx - mean_x.square()) + (yy - mean_y.square())
    covariance = xy - mean_x * mean_y
    mean_x, mean_y = mean_x + centre, mean_y + centre
    c1, c2 = (0.01 * _PEAK) ** 2, (0.03 * _PEAK) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    structure = (2 * covariance + c2) / (variances + c2)
    return (luminance * structure).view(images.shape[0], -1).mean(1)  # (B,)


def _smooth(maps: torch.Tensor) -> torch.Tensor:
    """`maps` (n, 1, H, W) under the Gaussian window, whole windows only."""
    offsets = torch.arange(WINDOW, device=maps.device, dtype=maps.dtype) - WINDOW // 2
    kernel = torch.exp(-offsets.square() / (2 * _SIGMA**2))
    kernel = kernel / kernel.sum()
    maps = F.conv2d(maps, kernel.view(1, 1, -1, 1))  # (n, 1, H - 10, W)
    return F.conv2d(maps, kernel.view(1, 1, 1, -1))  # (n, 1, H - 10, W - 10)


def _check_pair(images: torch.Tensor, references: torch.Tensor) -> None:
    if images.dtype != torch.uint8 or references.dtype != torch.uint8:
        raise UsageError(
            f"pictures must be uint8, not {images.dtype} and {references.dtype}; round and clamp them first"
        )
    if images.shape != references.shape or images.dim() != 4:
        raise UsageError(
            f"pictures must be two batches (B, C, H, W) of one shape, "
            f"not {tuple(images.shape)} and {tuple(references.shape)}"
        )
