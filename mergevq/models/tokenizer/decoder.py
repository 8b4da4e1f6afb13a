"""Codes on the grid to images: attention blocks that see the whole grid, then CNN stages upwards.

Legend: B batch, d code bits, h w grid, L = h*w positions, D width, C channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from mergevq.config import DecoderConfig
from mergevq.models.layers import (
    MixMlp,
    ResidualBlock,
    SelfAttention,
    Upsample,
    group_norm,
    on_grid,
    preactivated,
)


class MixBlock(nn.Module):
    """Norm, attention, norm, MixFFN, with residual connections and LayerScale; no merging."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, layer_scale: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads)
        self.scale1 = nn.Parameter(torch.full((width,), layer_scale))
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MixMlp(width, int(width * mlp_ratio))
        self.scale2 = nn.Parameter(torch.full((width,), layer_scale))

    def forward(self, x: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """(B, L, D) tokens of a (h, w) grid to (B, L, D)."""
        x = x + self.attention(self.norm1(x), None)[0] * self.scale1
        return x + self.mlp(self.norm2(x), grid) * self.scale2


class Decoder(nn.Module):
    """The mirror of the encoder, with MixFFN in place of merging.

    Source: MergeVQ (arXiv:2504.00999), Eq. 6 and Appendix A.1.

    Differs: plain GroupNorm at every level, where the authors' code scales and shifts by the codes (adaptive
    GroupNorm): the codes come in below, at the grid's resolution, and nowhere else.
    """

    def __init__(self, config: DecoderConfig, bits: int):
        super().__init__()
        width = config.width
        self.embed = nn.Conv2d(bits, width, 3, padding=1)
        self.position = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.blocks = nn.ModuleList(
            MixBlock(width, config.heads, config.mlp_ratio, config.layer_scale) for _ in range(config.depth)
        )
        channels = [config.channels * multiplier for multiplier in config.multipliers]
        first, last = (channels[-1], channels[0]) if channels else (width, width)
        self.project = nn.Identity() if first == width else nn.Conv2d(width, first, 1)
        self.stages = nn.Sequential(*_stages(channels, config.blocks))
        self.norm = group_norm(last)
        self.patch = config.patch
        self.out = nn.Conv2d(last, 3 * config.patch**2, 3, padding=1)

    def forward(self, codes: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Paints an image.

        Args:
            codes: (B, L, d), one code a position in raster order.
            grid: (h, w).

        Returns:
            (B, 3, H, W), about [-1, 1], not clamped.
        """
        x = on_grid(self.embed, codes.to(self.embed.weight.dtype), grid)
        x = x + on_grid(self.position, x, grid)
        for block in self.blocks:
            x = block(x, grid)
        image = self.project(x.unflatten(1, grid).permute(0, 3, 1, 2))  # (B, C, h, w)
        image = preactivated(self.norm, self.out, self.stages(image), consume=True)
        return F.pixel_shuffle(image, self.patch)


def _stages(channels: list[int], blocks: int) -> list[nn.Module]:
    """Residual blocks from the grid's resolution up to the pixels', doubling between the stages."""
    layers: list[nn.Module] = []
    for stage in reversed(range(len(channels))):
        before = channels[min(stage + 1, len(channels) - 1)]
        count = blocks + 1 if stage else blocks
        layers += [
            ResidualBlock(before if block == 0 else channels[stage], channels[stage])
            for block in range(count)
        ]
        if stage:
            layers.append(Upsample(channels[stage]))
    return layers
