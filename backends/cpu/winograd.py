"""Winograd's F(4x4, 3x3): a 4x4 tile of the output from a 6x6 tile of the input with 36 products, not 144.

A tile of the output is A^T [(G g G^T) * (B^T d B)] A, products taken elementwise and summed over the
channels. Flattened, every transform is one matrix product with a Kronecker square, and the sums over
the channels are 36 matrix products. The polynomials are evaluated at 0, +-sqrt(1/2), +-sqrt(2) and
infinity: against float64 that measured 1.5e-6 in relative norm at 512 channels, half of what the
customary 0, +-1, +-2 give (a direct float32 convolution: 2e-7).

The work is cut so that its buffers stay in the caches and are used again: memory that is new costs
more than the arithmetic. Nothing is kept between calls.

Source: Lavin & Gray (arXiv:1509.09308), Section 4; points in the manner of arXiv:1803.10986.
Legend: B batch, C channels in, O channels out, R rows and S columns of tiles, N tiles.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F

_CHUNK = 128
"""Tiles that are worked on at a time."""

_CHANNELS = 256
"""Output channels that are worked on at a time."""


def _kronecker_squares() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """B^T (6, 6), G (6, 3) and A^T (4, 6), each as its Kronecker product with itself, in float32."""
    points = [0.0, 0.5**0.5, -(0.5**0.5), 2**0.5, -(2**0.5)]
    data, kernel = [], []
    for point in points:
        others = [other for other in points if other != point]
        scale = math.prod(point - other for other in others)
        data.append([*_coefficients(others), 0.0])
        kernel.append([power / scale for power in (1.0, point, point**2)])
    data.append(_coefficients(points))
    kernel.append([0.0, 0.0, 1.0])
    output = [[point**power for point in points] + [float(power == 3)] for power in range(4)]
    matrices = (torch.tensor(rows, dtype=torch.float64) for rows in (data, kernel, output))
    data_square, kernel_square, output_square = (torch.kron(matrix, matrix).float() for matrix in matrices)
    return data_square, kernel_square, output_square


def _coefficients(roots: list[float]) -> list[float]:
    """Coefficients of the polynomial with these roots, the constant one first."""
    polynomial = [1.0]
    for root in roots:
        shifted, scaled = [0.0, *polynomial], [*(root * value for value in polynomial), 0.0]
        polynomial = [one - other for one, other in zip(shifted, scaled, strict=True)]
    return polynomial


_DATA, _KERNEL, _OUTPUT = _kronecker_squares()  # (36, 36), (36, 9), (16, 36)


def convolve(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """A 3x3 convolution with stride 1 and a border of one zero, without a gradient.

    Args:
        x: (B, C, h, w) float32 on the CPU.
        weight: (O, C, 3, 3).
        bias: (O,), or None.

    Returns:
        (B, O, h, w), channels-last.
    """
    batch, _, height, width = x.shape
    rows, columns = -(-height // 4), -(-width // 4)
    x = x.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)  # (B, h, w, C)
    out = x.new_empty(batch, 4 * rows, 4 * columns, len(weight))
    tiles = out.view(batch, rows, 4, columns, 4, -1).permute(2, 4, 0, 1, 3, 5)  # (4, 4, B, R, S, O)
    for start in range(0, len(weight), _CHANNELS):
        part = slice(start, start + _CHANNELS)
        _fill(tiles[..., part], x, weight[part], None if bias is None else bias[part])
    out = out[:, :height, :width].permute(0, 3, 1, 2)
    return out.contiguous(memory_format=torch.channels_last)  # copies where tiles stand out over the edge


def _fill(out: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
    """Writes the convolution of `x` (B, h, w, C) into `out` (4, 4, B, R, S, O)."""
    channels, width = weight.shape[1], len(weight)
    # The view is transposed inside the product: copying it would cost more.
    kernel = (_KERNEL @ weight.reshape(-1, 9).t()).view(36, width, channels).transpose(1, 2)  # (36, C, O)
    chunks = list(_chunks(*out.shape[2:5]))
    most = max(out[:, :, images, rows].shape[2:5].numel() for images, rows in chunks)
    here, there = (x.new_empty(36 * most * max(channels, width)) for _ in range(2))
    for images, rows in chunks:
        target = out[:, :, images, rows]
        grid = target.shape[2:5]
        count = grid.numel()  # N
        tiles = _as(here, 6, 6, *grid, channels).copy_(_input_tiles(x[images], rows, grid[2]))
        data = torch.mm(_DATA, tiles.view(36, -1), out=_as(there, 36, count * channels))
        products = torch.bmm(data.view(36, count, channels), kernel, out=_as(here, 36, count, width))
        result = torch.mm(_OUTPUT, products.view(36, -1), out=_as(there, 16, count * width))
        result = result.view(target.shape)
        target.copy_(result if bias is None else result.add_(bias))


def _chunks(batch: int, rows: int, columns: int) -> Iterator[tuple[slice, slice]]:
    """Pieces of about `_CHUNK` tiles: some rows of one picture, or several whole pictures."""
    step = min(max(_CHUNK // columns, 1), rows)
    pictures = max(_CHUNK // (step * columns), 1) if step == rows else 1
    for image in range(0, batch, pictures):
        for row in range(0, rows, step):
            yield slice(image, image + pictures), slice(row, min(row + step, rows))


def _input_tiles(x: torch.Tensor, rows: slice, columns: int) -> torch.Tensor:
    """The overlapping 6x6 tiles of rows of tiles of (n, h, w, C), as a view: (6, 6, n, rows, columns, C)."""
    top, bottom = 4 * rows.start - 1, 4 * rows.stop + 1
    inside = x[:, max(top, 0) : bottom]
    right = 4 * columns + 1 - x.shape[2]
    above = max(-top, 0)
    padded = F.pad(inside, (0, 0, 1, right, above, bottom - top - above - inside.shape[1]))
    tiles = padded.unfold(1, 6, 4).unfold(2, 6, 4)  # (n, rows, columns, C, 6, 6)
    return tiles.permute(4, 5, 0, 1, 2, 3)


def _as(buffer: torch.Tensor, *shape: int) -> torch.Tensor:
    """The beginning of a flat buffer, in this shape."""
    return buffer[: math.prod(shape)].view(shape)
