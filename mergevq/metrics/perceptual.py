"""LPIPS as a metric: the perceptual distance of two pictures, one number an image.

uint8 batches in, float32 (B,) out. The networks are those of the perceptual loss, with weights from a local
file; the distance is that of the rounded 8-bit pictures.
Source: Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features" (arXiv:1801.03924).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from mergevq.data.images.transforms import to_float
from mergevq.losses.perceptual import LpipsNetwork, load_lpips


@dataclass(frozen=True, slots=True)
class PerceptualDistance:
    """A named perceptual distance."""

    name: str
    """Network and weights, as the protocol of a result prints them."""
    distance: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    """Two batches (B, 3, H, W) float in [-1, 1] to (B,)."""

    @torch.inference_mode()
    def __call__(self, images: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
        """(B,) distances of two batches of (B, 3, H, W) uint8 pictures."""
        return self.distance(to_float(images), to_float(references))


def lpips(network: LpipsNetwork, weights: Path, device: torch.device | str = "cpu") -> PerceptualDistance:
    """LPIPS over a classification network.

    Args:
        network: the backbone; published LPIPS figures are mostly over alex or vgg.
        weights: torchvision's ImageNet weights of the backbone, a local file.
        device: where the network runs; pictures have to be there too.

    Raises:
        UsageError: the lpips package or the file is missing.
        CheckpointError: the file does not hold the backbone's weights.
    """
    distance = load_lpips(network, weights).to(device)
    return PerceptualDistance(f"LPIPS 0.1 over {network} ({weights.name})", distance)
