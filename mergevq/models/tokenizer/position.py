"""Fixed sine and cosine codes of positions, for any resolution.

Legend: h w grid, L = h*w, D width.
"""

from __future__ import annotations

import math

import torch


def sincos(positions: torch.Tensor, width: int, longest: float = 10_000.0) -> torch.Tensor:
    """(..., width) sines and cosines of real positions, at wavelengths from 2 pi to 2 pi * `longest`.

    Source: Vaswani et al. (arXiv:1706.03762), Section 3.5.
    """
    half = width // 2
    steps = torch.arange(half, device=positions.device, dtype=torch.float32) / half
    angles = positions.float().unsqueeze(-1) * torch.exp(-math.log(longest) * steps)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def grid_code(height: int, width: int, dimensions: int, device: torch.device) -> torch.Tensor:
    """(h*w, dimensions): the first half codes the row, the second the column, in raster order."""
    rows = sincos(torch.arange(height, device=device), dimensions // 2)  # (h, D/2)
    columns = sincos(torch.arange(width, device=device), dimensions // 2)  # (w, D/2)
    return torch.cat(
        [rows[:, None].expand(-1, width, -1), columns[None].expand(height, -1, -1)], dim=-1
    ).flatten(0, 1)


def nearness_code(height: int, width: int, device: torch.device) -> torch.Tensor:
    """(h*w, 4) unit vectors whose products fall with the distance on the grid, from 1 to near -1 at its far corner."""
    rows = torch.arange(height, device=device) * (math.pi / height)
    columns = torch.arange(width, device=device) * (math.pi / width)
    row, column = (angles.flatten() for angles in torch.meshgrid(rows, columns, indexing="ij"))
    return torch.stack([row.cos(), row.sin(), column.cos(), column.sin()], dim=-1) * 0.5**0.5
