"""Patterns of shards: `a-{0..2}.tar` to a-0.tar, a-1.tar, a-2.tar, within bounds."""

from __future__ import annotations

import re

from mergevq.errors import UsageError, shown

MOST = 1_000_000
"""Names that a pattern may stand for."""

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d{1,18})\.\.(\d{1,18})")


def expand_braces(pattern: str) -> list[str]:
    """The names that the braces of a pattern stand for, each once: `{0..2}` counts, zero-padded as written; `{x,y}` is
    either.

    Raises:
        UsageError: a range counts down, or there are more than `MOST` names.
    """
    names = [pattern]
    while any(map(_BRACES.search, names[:1])):
        names = [each for name in names for each in _expanded_once(name, len(names), pattern)]
    return list(dict.fromkeys(names))


def _expanded_once(name: str, others: int, pattern: str) -> list[str]:
    """The names for the first innermost braces of a name, of which there are `others` of the same form."""
    match = _BRACES.search(name)
    if match is None:
        return [name]
    options = _options(match[1], MOST // others, pattern)
    return [f"{name[: match.start()]}{option}{name[match.end() :]}" for option in options]


def _options(inside: str, most: int, pattern: str) -> list[str]:
    span = _RANGE.fullmatch(inside)
    if span is None:
        options = inside.split(",")
        count = len(options)
    else:
        first, last = int(span[1]), int(span[2])
        count = last - first + 1
        if count < 1:
            raise UsageError(f"{{{inside}}} counts down; write {{{span[2]}..{span[1]}}}")
    if count > most:
        raise UsageError(
            f"{shown(pattern)} stands for more than {MOST} names; give the folder, or a pattern with *"
        )
    if span is None:
        return options
    return [str(number).zfill(len(span[1])) for number in range(first, last + 1)]
