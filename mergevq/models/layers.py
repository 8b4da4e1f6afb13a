"""Building blocks that several parts share: attention, MLPs, LayerScale, residual CNN blocks.

Legend: B batch, T tokens, D width, M heads, E = D/M head width, h w grid, C channels.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from mergevq.backends import convolution3x3, preactivated_convolution3x3, sized_attention


class SelfAttention(nn.Module):
    """Multi-head self-attention in which tokens may stand for several positions."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: torch.Tensor, size: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Attends, and also returns the keys that merging measures similarity on.

        Args:
            x: (B, T, D).
            size: (B, T), or None where every token stands for one position.

        Returns:
            (B, T, D), and the keys averaged over heads, (B, T, E).
        """
        batch, tokens, _ = x.shape
        query, key, value = self.qkv(x).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        attended = sized_attention(query, key, value, None if size is None else size.log())
        return self.out(attended.transpose(1, 2).flatten(2)), key.mean(dim=1)


class Mlp(nn.Module):
    """Linear, GELU, linear."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(F.gelu(self.up(x)))


class MixMlp(nn.Module):
    """An MLP whose hidden features also see their eight neighbours on the grid.

    Source: MixFFN of SegFormer (arXiv:2105.15203), Eq. 3.
    """

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.up = nn.Linear(width, hidden)
        self.mix = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """(B, L, D) tokens of a (h, w) grid to (B, L, D)."""
        return self.down(F.gelu(on_grid(self.mix, self.up(x), grid)))


def on_grid(convolution: nn.Module, x: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Applies a convolution to (B, L, C) tokens of a (h, w) grid.

    The view of the tokens as an image is channels-last, so that nothing is copied.
    """
    image = x.unflatten(1, grid).permute(0, 3, 1, 2)  # (B, C, h, w)
    return convolution(image).permute(0, 2, 3, 1).flatten(1, 2)


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm over 32 groups, or as many as divide the channels."""
    return nn.GroupNorm(math.gcd(32, channels), channels, eps=1e-6)


def preactivated(
    norm: nn.GroupNorm,
    convolution: nn.Conv2d,
    x: torch.Tensor,
    residual: torch.Tensor | None = None,
    consume: bool = False,
) -> torch.Tensor:
    """Norm, SiLU and a 3x3 convolution, beside a residual, through the device's operator.

    Args:
        norm: over the C channels of `x`.
        convolution: 3x3, with stride 1 and a border of one zero.
        x: (B, C, h, w).
        residual: (B, O, h, w), added, or None.
        consume: whether `x` may be written over where no gradient is wanted.

    Returns:
        (B, O, h, w).
    """
    return preactivated_convolution3x3(
        x,
        norm.weight,
        norm.bias,
        norm.num_groups,
        norm.eps,
        convolution.weight,
        convolution.bias,
        residual,
        consume,
    )


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution that keeps the resolution, through the device's operator."""

    def __init__(self, channels: int, out: int, bias: bool = True):
        super().__init__(channels, out, 3, padding=1, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) to (B, out, h, w)."""
        return convolution3x3(x, self.weight, self.bias)


class ResidualBlock(nn.Module):
    """Norm, SiLU, 3x3 convolution, twice, beside a skip connection.

    Source: the encoder of MAGVIT-v2 (arXiv:2310.05737) without its causal convolutions.
    """

    def __init__(self, channels: int, out: int):
        super().__init__()
        self.norm1 = group_norm(channels)
        self.conv1 = Conv3x3(channels, out, bias=False)
        self.norm2 = group_norm(out)
        self.conv2 = Conv3x3(out, out, bias=False)
        self.skip = nn.Identity() if channels == out else nn.Conv2d(channels, out, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) to (B, out, h, w)."""
        hidden = preactivated(self.norm1, self.conv1, x)
        return preactivated(self.norm2, self.conv2, hidden, residual=self.skip(x), consume=True)


class Upsample(nn.Module):
    """A 3x3 convolution to four times the channels, folded out to twice the resolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = Conv3x3(channels, 4 * channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) to (B, C, 2h, 2w)."""
        return F.pixel_shuffle(self.conv(x), 2)
