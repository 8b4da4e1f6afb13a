"""What a JSON value may be, written as a value: types and ranges of what is read, checked in one walk."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from mergevq.errors import shown

Check = Callable[[Any, str], None]
"""Takes a value and where it stands; raises ValueError with what is wanted there."""


def anything(value: Any, where: str) -> None:
    """What something else checks."""


def flag(value: Any, where: str) -> None:
    """true or false."""
    _require(isinstance(value, bool), value, where, "true or false")


def text(pattern: str = r"[^\x00-\x1f]{0,300}") -> Check:
    """A line of text that a pattern matches as a whole."""

    def check(value: Any, where: str) -> None:
        _require(isinstance(value, str) and re.fullmatch(pattern, value), value, where, "another text")

    return check


def whole(least: int, most: int) -> Check:
    """An integer from `least` to `most`."""

    def check(value: Any, where: str) -> None:
        sound = isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
        _require(sound, value, where, f"a whole number from {least} to {most}")

    return check


def real(value: Any, where: str) -> None:
    """A number from 0 up."""
    sound = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf
    _require(sound, value, where, "a number from 0 up")


def choice(*values: str) -> Check:
    """One of these texts."""

    def check(value: Any, where: str) -> None:
        _require(isinstance(value, str) and value in values, value, where, f"one of {', '.join(values)}")

    return check


def optional(check: Check) -> Check:
    """null, or what a check admits."""
    return lambda value, where: None if value is None else check(value, where)


def listed(check: Check) -> Check:
    """A list, each of whose values a check admits."""

    def each(value: Any, where: str) -> None:
        _require(isinstance(value, list), value, where, "a list")
        for number, item in enumerate(value):
            check(item, f"{where}[{number}]")

    return each


def table(key: str, check: Check) -> Check:
    """A mapping of any number of names, which a pattern matches, to what a check admits."""

    def each(value: Any, where: str) -> None:
        _require(isinstance(value, Mapping), value, where, "a table")
        for name, item in value.items():
            if not re.fullmatch(key, name):
                raise ValueError(f"{shown(name)} in {where} is not the name of one of those")
            check(item, f"{where}.{name}" if where else name)

    return each


def record(known: Mapping[str, Check], may_lack: tuple[str, ...] = ()) -> Check:
    """A mapping with these keys and no others."""

    def each(value: Any, where: str) -> None:
        _require(isinstance(value, Mapping), value, where or "the whole", "a table")
        prefix = f"{where}." if where else ""
        for name in (*known, *value):
            if name not in known:
                raise ValueError(f"{shown(prefix + name)} is not known")
            if name not in value:
                if name not in may_lack:
                    raise ValueError(f"{prefix}{name} is missing")
                continue
            known[name](value[name], f"{prefix}{name}")

    return each


def _require(sound: object, value: Any, where: str, wanted: str) -> None:
    if not sound:
        raise ValueError(f"{where} is {shown(value)}; {wanted} is wanted there")
