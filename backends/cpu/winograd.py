"""Winograd's F(4x4, 3x3): a 4x4 tile of the output from a 6x6 tile of the input with 36 products, not 144.

A tile of the output is A^T [(G g G^T) * (B^T d B)] A, products taken elementwise and summed over the
channels. Flattened, every transform is one matrix product with a Kronecker square, and the sums over
the channels are 36 matrix products. The polynomials are evaluated at 0, +-sqrt(1/2), +-sqrt(2) and
infinity: against float64 that measured 1.5e-6 in relative norm at 512 channels, half of what the
customary 0, +-1, +-2 give (a direct float32 convolution: 2e-7).

The work is cut so that its buffers stay in the caches and are used again: memory that is new costs
more than the arithmetic. Nothing is kept between calls.

Source: Lavin & Gray (arXiv:1509.09308), Section 4; points in the manner of arXiv:1803.10986.
Legend: B batch, C channels in, O channels out, h w resolution, n pictures, r rows and S columns of tiles,
N tiles.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch

from mergevq.backends.cpu.strips import Affine, Strips

_FEW = 64
"""With fewer tiles the products are faster with the tiles innermost."""

Chunk = tuple[slice, slice]
"""Pictures, and rows of tiles of them."""

_CHUNK = 128
"""Tiles that are worked on at a time."""

_CHANNELS = 256
"""Output channels that are worked on at a time."""

_CHANNELS_OF_ONE = 64
"""The same where there is one chunk: each kernel is used but once, while it is in the caches."""


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


DATA, KERNEL, OUTPUT = _kronecker_squares()
"""The transforms of tiles (36, 36), of kernels (36, 9) and of products (16, 36), flattened."""


def convolve(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    affine: Affine | None = None,
    residual: torch.Tensor | None = None,
    consume: bool = False,
) -> torch.Tensor:
    """A 3x3 convolution with stride 1 and a border of one zero, without a gradient.

    Args:
        x: (B, C, h, w) float32 on the CPU.
        weight: (O, C, 3, 3).
        bias: (O,), or None.
        affine: (B, C) factors and summands: `x` is normalised with them and activated by SiLU before.
        residual: (B, O, h, w), added to the result, or None.
        consume: whether the result may be written over `x`; it shares no memory with `residual` then.

    Returns:
        (B, O, h, w), channels-last.
    """
    x, width = innermost(x), len(weight)
    beside = None if residual is None else innermost(residual)
    out = x if consume and x.shape[3] == width else x.new_empty(*x.shape[:3], width)
    work = _Workspace(x, affine, width)
    for start in range(0, width, work.step):
        part = slice(start, start + work.step)
        kernel = work.kernel(weight[part])
        for images, rows in work.chunks:
            result = work.tiles(images, rows, kernel)
            if bias is not None:
                result.add_(bias[part])
            place = images, slice(4 * rows.start, 4 * rows.stop), slice(None), part
            _write(out[place], result, None if beside is None else beside[place])
    return out.permute(0, 3, 1, 2)


def innermost(x: torch.Tensor) -> torch.Tensor:
    """(B, C, h, w) in any memory format as contiguous (B, h, w, C); a view where it can be."""
    return x.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)


class _Workspace:
    """The chunks of a batch (B, h, w, C), and the buffers that they are transformed and multiplied in.

    A single chunk is transformed once and kept, so that its output can be made of a few channels at a
    time, under kernels that are still in the caches. One of several is transformed for every `step`.
    """

    def __init__(self, x: torch.Tensor, affine: Affine | None, width: int):
        rows, columns = -(-x.shape[1] // 4), -(-x.shape[2] // 4)
        self.chunks = list(_chunks(len(x), rows, columns))
        self.single = len(self.chunks) == 1
        self.step = min(_CHANNELS_OF_ONE if self.single else _CHANNELS, width)
        images, band = self.chunks[0]  # none is larger
        if self.single or self.step == width:
            self.strip: Callable[[slice, slice], torch.Tensor] = Strips(x, affine, images.stop, band.stop)
        else:  # each strip is wanted again
            self.strip = _pieces(Strips(x, affine, len(x), rows)(slice(0, len(x)), slice(0, rows)))
        size = 36 * images.stop * band.stop * columns
        self.here, self.there = (x.new_empty(size * max(x.shape[3], self.step)) for _ in range(2))
        self.last = x.new_empty(size * self.step) if self.single else self.there
        self.kernels = x.new_empty(36 * x.shape[3] * self.step)
        self.transformed: tuple[torch.Size, torch.Tensor] | None = None

    def kernel(self, weight: torch.Tensor) -> torch.Tensor:
        """G g G^T of (O, C, 3, 3) weights: (36, O, C)."""
        width, channels = weight.shape[:2]
        flat = torch.mm(KERNEL, weight.reshape(-1, 9).t(), out=_as(self.kernels, 36, width * channels))
        return flat.view(36, width, channels)

    def tiles(self, images: slice, rows: slice, kernel: torch.Tensor) -> torch.Tensor:
        """The output's tiles of a chunk under a kernel (36, O, C): (4, 4, n, r, S, O)."""
        if self.transformed is None or not self.single:
            self.transformed = self._transform(self.strip(images, rows))
        grid, data = self.transformed
        count, width = data.shape[1], kernel.shape[1]
        if count < _FEW:
            products = torch.bmm(kernel, data.transpose(1, 2), out=_as(self.here, 36, width, count))
            return self._back(products, width, *grid).permute(0, 1, 3, 4, 5, 2)
        products = torch.bmm(data, kernel.transpose(1, 2), out=_as(self.here, 36, count, width))
        return self._back(products, *grid, width)

    def _transform(self, strip: torch.Tensor) -> tuple[torch.Size, torch.Tensor]:
        """(n, r, S), and B^T d B (36, N, C), of a strip (n, 4r + 2, 4S + 2, C)."""
        tiles = strip.unfold(1, 6, 4).unfold(2, 6, 4).permute(4, 5, 0, 1, 2, 3)  # (6, 6, n, r, S, C)
        gathered = _as(self.here, *tiles.shape).copy_(tiles).view(36, -1)
        data = torch.mm(DATA, gathered, out=_as(self.there, *gathered.shape))
        return tiles.shape[2:5], data.view(36, -1, tiles.shape[5])

    def _back(self, products: torch.Tensor, *shape: int) -> torch.Tensor:
        """A^T m A of products (36, ...): (4, 4, *shape)."""
        flat = products.view(36, -1)
        return torch.mm(OUTPUT, flat, out=_as(self.last, 16, flat.shape[1])).view(4, 4, *shape)


def _pieces(whole: torch.Tensor) -> Callable[[slice, slice], torch.Tensor]:
    """What `Strips` gives, out of one strip that is the whole batch."""
    return lambda images, rows: whole[images, 4 * rows.start : 4 * rows.stop + 2]


def _write(out: torch.Tensor, tiles: torch.Tensor, residual: torch.Tensor | None) -> None:
    """Writes tiles (4, 4, n, r, S, O), plus a residual, into rows of pictures (n, up to 4r, w, O)."""
    if out.shape[1] % 4 or out.shape[2] % 4:  # tiles stand out over the edge
        picture = tiles.permute(2, 3, 0, 4, 1, 5).flatten(3, 4).flatten(1, 2)  # (n, 4r, 4S, O)
        tiles = picture[:, : out.shape[1], : out.shape[2]]
    else:
        out = _tiled(out)
        residual = None if residual is None else _tiled(residual)
    if residual is None:
        out.copy_(tiles)
    else:
        torch.add(residual, tiles, out=out)


def _tiled(rows: torch.Tensor) -> torch.Tensor:
    """(n, 4r, 4S, O) as a view of its tiles: (4, 4, n, r, S, O)."""
    return rows.unflatten(2, (-1, 4)).unflatten(1, (-1, 4)).permute(2, 4, 0, 1, 3, 5)


def _chunks(batch: int, rows: int, columns: int) -> Iterator[Chunk]:
    """Pieces of about `_CHUNK` tiles: some rows of one picture, or several whole pictures."""
    step = min(max(_CHUNK // columns, 1), rows)
    pictures = max(_CHUNK // (step * columns), 1) if step == rows else 1
    for image in range(0, batch, pictures):
        for row in range(0, rows, step):
            yield slice(image, min(image + pictures, batch)), slice(row, min(row + step, rows))


def _as(buffer: torch.Tensor, *shape: int) -> torch.Tensor:
    """The beginning of a flat buffer, in this shape."""
    return buffer[: math.prod(shape)].view(shape)
