"""What the run times are given, as NumPy arrays; needs no PyTorch, so that a process without it can be measured."""

from __future__ import annotations

import numpy as np

from mergevq.config import TokenizerConfig
from mergevq.tokens import TokenArrays


def noise(config: TokenizerConfig, batch: int) -> np.ndarray:
    """(batch, 3, S, S) float32 in [-1, 1], the same every time."""
    size = config.image_size
    return np.random.default_rng(0).random((batch, 3, size, size), dtype=np.float32) * 2 - 1


def random_tokens(config: TokenizerConfig, keep: int, batch: int) -> TokenArrays:
    """Random codes; each covers a position, and the last one what is left."""
    indices = np.random.default_rng(0).integers(0, 2**config.quantizer.bits, (batch, keep))
    source = np.tile(np.minimum(np.arange(config.length), keep - 1), (batch, 1))
    sizes = np.ones_like(indices)
    sizes[:, -1] = config.length - keep + 1
    return TokenArrays(indices, source, sizes, (config.grid, config.grid))
