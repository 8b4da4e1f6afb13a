"""Images to merged tokens: a stem, CNN stages, then ToMe attention blocks.

Legend: B batch, H W pixels, h w grid, L = h*w positions, K kept tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from mergevq.config import EncoderConfig, MergeConfig
from mergevq.models.layers import Conv3x3, ResidualBlock
from mergevq.models.tokenizer.merge import merge_schedule
from mergevq.models.tokenizer.position import grid_code, nearness_code
from mergevq.models.tokenizer.tome import MergeState, ToMeBlock


class Encoding(NamedTuple):
    """What the encoder makes of a batch; `encode` of the tokenizer quantises it."""

    tokens: torch.Tensor
    """(B, K, D), in raster order of the first position that each covers."""
    source: torch.Tensor
    """(B, L) int64 in [0, K)."""
    sizes: torch.Tensor
    """(B, K) int64."""
    cls: torch.Tensor
    """(B, D), the class token: the image as a whole."""
    grid: tuple[int, int]
    """(h, w)."""


class Encoder(nn.Module):
    """The two-stage encoder of Eq. 1 to 3; with no CNN stages it is a Vision Transformer.

    Source: MergeVQ (arXiv:2504.00999), Section 3.1 and Table A1.
    Differs: a fixed 2-D position code with a learned gain is added before the attention blocks;
    without one the ViT would not see where a patch is.
    """

    def __init__(self, config: EncoderConfig, merging: MergeConfig):
        super().__init__()
        self.schedule = merging.schedule
        self.locality = merging.locality
        channels = [config.channels * multiplier for multiplier in config.multipliers]
        first = channels[0] if channels else config.width
        # A stem that folds pixels is a patch embedding; one that does not is an ordinary convolution.
        self.stem = (
            Conv3x3(3, first, bias=False)
            if config.patch == 1
            else nn.Conv2d(3, first, config.patch, stride=config.patch)
        )
        self.stages = nn.Sequential(*_stages(channels, config.blocks))
        last = channels[-1] if channels else config.width
        self.project = nn.Identity() if last == config.width else nn.Conv2d(last, config.width, 1)
        self.cls = nn.Parameter(torch.zeros(config.width))
        self.position_gain = nn.Parameter(torch.full((config.width,), 0.3))
        self.blocks = nn.ModuleList(
            ToMeBlock(config.width, config.heads, config.mlp_ratio, config.layer_scale)
            for _ in range(config.depth)
        )

    def forward(self, images: torch.Tensor, keep: int) -> Encoding:
        """Encodes a batch.

        Args:
            images: (B, 3, H, W) in [-1, 1]; H and W multiples of the stride.
            keep: K, a count that the merge schedule reaches from L = h*w.

        Raises:
            UsageError: K cannot be reached; the nearest count that can is named.
        """
        x, grid = self.embed(images)
        plan = merge_schedule(grid[0] * grid[1], keep, len(self.blocks), self.schedule)
        return self.attend(x, grid, plan)

    def embed(self, images: torch.Tensor) -> tuple[torch.Tensor, tuple[int, int]]:
        """Everything before the attention blocks: (B, 1 + L, D), the class token first, and (h, w)."""
        features = self.project(self.stages(self.stem(images)))  # (B, D, h, w)
        height, width = features.shape[2:]
        x = features.flatten(2).transpose(1, 2)  # (B, L, D)
        # In the type of the weights, and not of the features: autocast computes in float32 what is added up.
        code = grid_code(height, width, x.shape[-1], x.device).to(self.position_gain.dtype)
        x = x + code * self.position_gain
        return torch.cat([self.cls.expand(x.shape[0], 1, -1), x], dim=1), (height, width)

    def attend(self, x: torch.Tensor, grid: tuple[int, int], plan: Sequence[int]) -> Encoding:
        """The attention blocks.

        Args:
            x: (B, 1 + L, D), as `embed` makes it.
            grid: (h, w).
            plan: how many tokens each block merges.
        """
        state = MergeState(x, None, None, self._place(x, *grid))
        for block, merges in zip(self.blocks, plan, strict=True):
            state = block(state, merges)
        return _encoding(state, grid)

    def _place(self, x: torch.Tensor, height: int, width: int) -> torch.Tensor | None:
        """(B, 1 + L, 4) the places of the class token, which is nowhere, and of all positions."""
        if not self.locality:
            return None
        code = nearness_code(height, width, x.device) * self.locality**0.5
        return F.pad(code, (0, 0, 1, 0)).expand(x.shape[0], -1, -1)  # len() would fix B in an export


def _encoding(state: MergeState, grid: tuple[int, int]) -> Encoding:
    """Takes the class token away from the final state."""
    tokens, size, source, _ = state
    if size is None or source is None:  # nothing was merged
        length = torch.arange(tokens.shape[1], device=tokens.device)
        source = length.expand(tokens.shape[0], -1)
        size = tokens.new_ones(tokens.shape[:2], dtype=torch.float32)
    return Encoding(tokens[:, 1:], source[:, 1:] - 1, size[:, 1:].long(), tokens[:, 0], grid)


def _stages(channels: list[int], blocks: int) -> list[nn.Module]:
    """Residual blocks at each resolution, with a strided convolution between the resolutions."""
    layers: list[nn.Module] = []
    for stage, out in enumerate(channels):
        before = channels[max(stage - 1, 0)]
        if stage:
            layers.append(nn.Conv2d(before, before, 3, stride=2, padding=1))
        layers += [ResidualBlock(before if block == 0 else out, out) for block in range(blocks)]
    return layers
