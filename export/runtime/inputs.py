"""What comes from outside, before any of it reaches a graph: shapes, types and ranges.

A graph given an index that is out of range raises on one provider, and reads whatever lies there on another.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from mergevq.config import TokenizerConfig
from mergevq.errors import UsageError

_BEYOND = 1 + 1e-3
"""How far from 0 a pixel may be: rounding on the way to [-1, 1] is no fault."""


def checked_images(images: Any, config: TokenizerConfig) -> np.ndarray:
    """(B, 3, S, S) float32 images of the size that the graphs were made for.

    Raises:
        UsageError: another type or shape, or values that are NaN or not in [-1, 1].
    """
    size = config.image_size
    array = _array("images", images)
    if array.dtype != np.float32:
        raise UsageError(
            f"images are {array.dtype}; float32 in [-1, 1] is wanted, which for uint8 is value / 127.5 - 1"
        )
    if array.ndim != 4 or array.shape[1:] != (3, size, size) or not len(array):
        raise UsageError(
            f"images are {array.shape}; these graphs take (B, 3, {size}, {size}) with at least one image"
        )
    least, greatest = float(array.min()), float(array.max())
    if not (least >= -_BEYOND and greatest <= _BEYOND):  # which NaN is not either
        raise UsageError(f"images hold values from {least:.4g} to {greatest:.4g}; they must lie in [-1, 1]")
    return np.ascontiguousarray(array)


def checked_indices(indices: Any, config: TokenizerConfig) -> np.ndarray:
    """(B, K) int64 codes with 1 <= K <= L.

    Raises:
        UsageError: another type or shape, or a code outside the vocabulary.
    """
    array = _integers("indices", indices)
    if array.ndim != 2 or not len(array) or not 0 < array.shape[1] <= config.length:
        raise UsageError(
            f"indices are {array.shape}; a {config.grid} x {config.grid} grid takes (B, K) with "
            f"1 <= K <= {config.length}"
        )
    _check_range("indices", array, 2**config.quantizer.bits)
    return array


def checked_source(source: Any, indices: np.ndarray, config: TokenizerConfig) -> np.ndarray:
    """(B, L) int64, which of its row's K tokens covers each position.

    Raises:
        UsageError: another type or shape, or a token that there is not.
    """
    array = _integers("source", source)
    if array.shape != (len(indices), config.length):
        raise UsageError(f"source is {array.shape}; {(len(indices), config.length)} is wanted")
    _check_range("source", array, indices.shape[1])
    return array


def checked_starts(starts: Any, indices: np.ndarray, config: TokenizerConfig) -> np.ndarray:
    """(B, K) int64, ascending from 0: the position at which each token begins.

    Raises:
        UsageError: another type or shape, or positions that do not ascend from 0 within the grid.
    """
    array = _integers("starts", starts)
    if array.shape != indices.shape:
        raise UsageError(f"starts are {array.shape}; {indices.shape} is wanted, one for each index")
    _check_range("starts", array, config.length)
    if (array[:, 0] != 0).any() or (np.diff(array, axis=1) <= 0).any():
        raise UsageError("starts do not ascend from 0 in every row, as the first positions of tokens do")
    return array


def checked_count(name: str, value: Any) -> int:
    """An integer, of whatever type.

    Raises:
        UsageError: it is something else.
    """
    try:
        return operator.index(value)
    except TypeError:
        raise UsageError(f"{name} is {value!r}; an integer is wanted") from None


def _integers(name: str, values: Any) -> np.ndarray:
    array = _array(name, values)
    if array.dtype.kind not in "iu":
        raise UsageError(f"{name} are {array.dtype}; integers are wanted")
    return np.ascontiguousarray(array, dtype=np.int64)


def _array(name: str, values: Any) -> np.ndarray:
    if not isinstance(values, np.ndarray):
        raise UsageError(f"{name} are of type {type(values).__name__}; a NumPy array is wanted")
    return values


def _check_range(name: str, array: np.ndarray, end: int) -> None:
    least, greatest = int(array.min()), int(array.max())
    if least < 0 or greatest >= end:
        wrong = least if least < 0 else greatest
        raise UsageError(f"{name} hold {wrong}; they must lie in [0, {end})")
