"""What numbers a setting may be: declared beside its type, checked in one place.

    rate: Annotated[float, Range(0, 100, ends="(]")] = 1e-4
    betas: Annotated[tuple[Annotated[float, Range(0, 1, ends="[)")], ...], Length(2, 2)] = (0.5, 0.9)

`check_numbers(self, "optimizer")` at the head of a `__post_init__` checks all fields of a dataclass. Every number has
both ends, so that neither NaN nor infinity nor 10^30 gets through; `undeclared` names the fields that were forgotten.
"""

from __future__ import annotations

import dataclasses
import numbers
import typing
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from mergevq.errors import ConfigError, shown


@dataclass(frozen=True)
class Range:
    """The numbers from `least` to `most`; a round bracket in `ends` leaves that end out."""

    least: float
    most: float
    ends: Literal["[]", "[)", "(]", "()"] = "[]"

    def __contains__(self, value: float) -> bool:
        above = value > self.least if self.ends[0] == "(" else value >= self.least
        below = value < self.most if self.ends[1] == ")" else value <= self.most
        return above and below

    def __str__(self) -> str:
        return f"{self.ends[0]}{self.least}, {self.most}{self.ends[1]}"


@dataclass(frozen=True)
class Length:
    """How many values a list may have."""

    least: int
    most: int


Count = Annotated[int, Range(1, 10**9)]
"""A number of steps, pictures or the like, of which there is at least one."""
Share = Annotated[float, Range(0, 1)]
"""A share of a whole."""
PartialShare = Annotated[float, Range(0, 1, ends="[)")]
"""A share that cannot be the whole."""
Weight = Annotated[float, Range(0, 10**6)]
"""The weight of a term of a loss."""
Seed = Annotated[int, Range(0, 2**32 - 1)]
"""What every random generator here can be seeded with."""
Workers = Annotated[int, Range(0, 1024)]
"""Processes that read data, for each device."""


def check_numbers(config: Any, where: str) -> None:
    """Makes sure that every field of a dataclass is a number of its declared range, or a list of such.

    Args:
        config: the dataclass.
        where: the group that its fields are called after, such as "optimizer"; may be empty.

    Raises:
        ConfigError: one is not; the message names it, its value and its range.
    """
    for name, hint in _hints(type(config)).items():
        _check(hint, getattr(config, name), f"{where}.{name}".lstrip("."))


def undeclared(kind: type) -> list[str]:
    """The fields of a dataclass that are numbers, or lists of numbers, and have no range."""
    return [name for name, hint in _hints(kind).items() if not _declared(hint)]


def _hints(kind: type) -> dict[str, Any]:
    """The types of a dataclass's fields, with what stands beside them."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _declared(hint: Any) -> bool:
    if hint in (int, float):
        return False
    if typing.get_origin(hint) is Annotated:
        base, *marks = typing.get_args(hint)
        ranged = any(isinstance(mark, Range) for mark in marks)
        return ranged or (base not in (int, float) and _declared(base))
    return all(_declared(part) for part in typing.get_args(hint))


def _check(hint: Any, value: Any, path: str, allowed: Range | None = None) -> None:
    """One value against its type; `allowed` is the range that stood around the type."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        _check_length(parts[1:], value, path)
        _check(parts[0], value, path, next((mark for mark in parts[1:] if isinstance(mark, Range)), None))
    elif type(None) in parts:  # an optional value
        if value is not None:
            _check(parts[0], value, path, allowed)
    elif origin is tuple:
        for item in value:
            _check(parts[0], item, path, allowed)
    elif allowed is not None:
        _check_number(hint, value, path, allowed)


def _check_length(marks: tuple[Any, ...], value: Any, path: str) -> None:
    for mark in marks:
        if isinstance(mark, Length) and not mark.least <= len(value) <= mark.most:
            count = f"{mark.least}" if mark.least == mark.most else f"{mark.least} to {mark.most}"
            raise ConfigError(f"{path} is a list of {len(value)}; it must hold {count} numbers")


def _check_number(kind: type, value: Any, path: str, allowed: Range) -> None:
    whole = kind is int
    kinds = numbers.Integral if whole else numbers.Real  # NumPy's numbers are of these too
    fits = isinstance(value, kinds) and not isinstance(value, bool)
    if not fits or value not in allowed:
        limits = (
            f"a whole number from {allowed.least} to {allowed.most}" if whole else f"a number in {allowed}"
        )
        raise ConfigError(f"{path} is {shown(value)}; it must be {limits}")
