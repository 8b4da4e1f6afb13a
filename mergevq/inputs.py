"""What is given from outside, before any of it reaches a model or a graph: types, shapes and ranges.

PyTorch's objects and those of exported graphs ask here, so that they take the same things and refuse the others in
the same words. Types come as names, shapes and values as numbers: nothing here needs PyTorch or NumPy.

Legend: B batch, H W pixels, h w grid, K kept tokens.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from typing import Any

from mergevq.errors import UsageError

_FLOATS = ("float16", "bfloat16", "float32", "float64")
_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")

_BEYOND = 1 + 1e-3
"""How far from 0 a pixel may be: rounding on the way to [-1, 1] is no fault."""


def check_kind(name: str, value: object, kind: type, called: str) -> None:
    """Raises UsageError for what is no array of the kind that a run time works with."""
    if not isinstance(value, kind):
        raise UsageError(f"{name} are of type {type(value).__name__}; {called} is wanted")


def check_image_type(dtype: str) -> None:
    """Raises UsageError for pixels that are no numbers with a fraction: 255 is white in bytes, and far outside here."""
    if dtype not in _FLOATS:
        raise UsageError(
            f"images are {dtype}; floating-point values in [-1, 1] are wanted, which for uint8 is value / 127.5 - 1"
        )


def check_image_shape(shape: Sequence[int], stride: int) -> None:
    """Raises UsageError unless the shape is (B, 3, H, W) with B > 0 and sides that are multiples of `stride`."""
    if len(shape) != 4 or shape[1] != 3 or shape[0] < 1:
        raise UsageError(f"images are {tuple(shape)}; (B, 3, H, W) is wanted, with at least one image")
    height, width = shape[2:]
    if min(height, width) < stride or height % stride or width % stride:
        raise UsageError(
            f"images are {height} x {width} px; both sides must be multiples of {stride} px, at least {stride}"
        )


def check_pixels(least: float, greatest: float) -> None:
    """Raises UsageError for values that are NaN or not in [-1, 1]."""
    if not (least >= -_BEYOND and greatest <= _BEYOND):  # which NaN is not either
        raise UsageError(f"images hold values from {least:.4g} to {greatest:.4g}; they must lie in [-1, 1]")


def check_integer_type(name: str, dtype: str) -> None:
    """Raises UsageError for numbers that are no integers."""
    if dtype not in _INTEGERS:
        raise UsageError(f"{name} are {dtype}; integers are wanted")


def check_index_shape(shape: Sequence[int], grid: tuple[int, int]) -> None:
    """Raises UsageError unless the shape is (B, K) with B > 0 and 1 <= K <= h*w."""
    height, width = grid
    if len(shape) != 2 or shape[0] < 1 or not 0 < shape[1] <= height * width:
        raise UsageError(
            f"indices are {tuple(shape)}; a {height} x {width} grid takes (B, K) with at least one row and "
            f"1 <= K <= {height * width}"
        )


def check_shape(name: str, shape: Sequence[int], wanted: Sequence[int]) -> None:
    """Raises UsageError for another shape than the other inputs ask for."""
    if tuple(shape) != tuple(wanted):
        raise UsageError(f"the shape of {name} is {tuple(shape)}; {tuple(wanted)} is wanted")


def check_range(name: str, least: int, greatest: int, end: int) -> None:
    """Raises UsageError for values that are not in [0, end)."""
    if least < 0 or greatest >= end:
        raise UsageError(f"{name} hold {least if least < 0 else greatest}; they must lie in [0, {end})")


def check_starts(ascending: bool) -> None:
    """Raises UsageError unless the first positions of tokens ascend from 0 in every row."""
    if not ascending:
        raise UsageError("starts do not ascend from 0 in every row, as the first positions of tokens do")


def checked_grid(grid: Any) -> tuple[int, int]:
    """(h, w), of whatever integers.

    Raises:
        UsageError: it is something else than a pair of positive integers.
    """
    try:
        height, width = map(operator.index, grid)
    except (TypeError, ValueError):
        raise UsageError(f"grid is {grid!r}; a pair (h, w) of positive integers is wanted") from None
    if min(height, width) < 1:
        raise UsageError(f"grid is {grid!r}; a pair (h, w) of positive integers is wanted")
    return height, width


def check_same_grid(given: Any, tokens: tuple[int, int]) -> None:
    """Raises UsageError for a grid beside tokens that are on another one."""
    if given is not None and checked_grid(given) != tuple(tokens):
        raise UsageError(
            f"grid is {given!r}, and the tokens are on one of {tokens[0]} x {tokens[1]}; leave it out"
        )


def checked_integer(name: str, value: Any) -> int:
    """An integer, of whatever type.

    Raises:
        UsageError: it is something else.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise UsageError(f"{name} is {value!r}; an integer is wanted")
    try:
        return operator.index(value)
    except TypeError:  # an array of several, or of fractions
        raise UsageError(f"{name} is {value!r}; an integer is wanted") from None


def checked_number(name: str, value: Any) -> float:
    """A finite number, of whatever type.

    Raises:
        UsageError: it is something else.
    """
    try:
        number = math.nan if isinstance(value, (str, bytes)) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"{name} is {value!r}; a number is wanted")
    return number


def integers(name: str, values: Any) -> int | list[int]:
    """An integer, or a list of them.

    Args:
        name: of several, in a message.
        values: a number, a sequence, an array or a tensor.

    Raises:
        UsageError: something in it is no integer.
    """
    plain = values.tolist() if hasattr(values, "tolist") else values
    if isinstance(plain, Iterable) and not isinstance(plain, (str, bytes)):
        return [_integer_of(name, each) for each in plain]
    return _integer_of(name, plain)


def _integer_of(name: str, value: Any) -> int:
    try:
        return checked_integer(name, value)
    except UsageError:
        raise UsageError(f"{name} hold {value!r}; integers are wanted") from None
