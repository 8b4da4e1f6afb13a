"""Arrays from outside, checked before any of them reaches a graph; what is checked says `mergevq.inputs`.

A graph given an index that is out of range raises on one provider, and reads whatever lies there on another.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mergevq import inputs
from mergevq.config import TokenizerConfig
from mergevq.errors import UsageError


def checked_images(images: Any, config: TokenizerConfig) -> np.ndarray:
    """(B, 3, S, S) float32 images of the size that the graphs were made for.

    Raises:
        UsageError: another type or shape, or values that are NaN or not in [-1, 1].
    """
    array = _array("images", images, "a NumPy array")
    inputs.check_image_type(array.dtype.name)
    inputs.check_image_shape(array.shape, config.stride)
    size = config.image_size
    if array.shape[2:] != (size, size):
        raise UsageError(f"images are {array.shape}; these graphs take (B, 3, {size}, {size})")
    inputs.check_pixels(float(array.min()), float(array.max()))
    return np.ascontiguousarray(array, dtype=np.float32)


def checked_indices(indices: Any, config: TokenizerConfig) -> np.ndarray:
    """(B, K) int64 codes with 1 <= K <= L.

    Raises:
        UsageError: another type or shape, or a code outside the vocabulary.
    """
    array = _integers("indices", indices, "TokenArrays or a NumPy array of indices")
    inputs.check_index_shape(array.shape, (config.grid, config.grid))
    _check_range("indices", array, 2**config.quantizer.bits)
    return array


def checked_source(source: Any, indices: np.ndarray, config: TokenizerConfig) -> np.ndarray:
    """(B, L) int64, which of its row's K tokens covers each position.

    Raises:
        UsageError: another type or shape, or a token that there is not.
    """
    array = _integers("source", source)
    inputs.check_shape("source", array.shape, (len(indices), config.length))
    _check_range("source", array, indices.shape[1])
    return array


def checked_starts(starts: Any, indices: np.ndarray, config: TokenizerConfig) -> np.ndarray:
    """(B, K) int64, ascending from 0: the position at which each token begins.

    Raises:
        UsageError: another type or shape, or positions that do not ascend from 0 within the grid.
    """
    array = _integers("starts", starts)
    inputs.check_shape("starts", array.shape, indices.shape)
    _check_range("starts", array, config.length)
    inputs.check_starts(not ((array[:, 0] != 0).any() or (np.diff(array, axis=1) <= 0).any()))
    return array


def _integers(name: str, values: Any, called: str = "a NumPy array") -> np.ndarray:
    array = _array(name, values, called)
    inputs.check_integer_type(name, array.dtype.name)
    return np.ascontiguousarray(array, dtype=np.int64)


def _array(name: str, values: Any, called: str) -> np.ndarray:
    inputs.check_kind(name, values, np.ndarray, called)
    array: np.ndarray = values
    return array


def _check_range(name: str, array: np.ndarray, end: int) -> None:
    inputs.check_range(name, int(array.min()), int(array.max()), end)
