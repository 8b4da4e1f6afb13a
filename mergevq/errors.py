"""Every error that a user can cause, each with one sentence that says what to do next.

The command line prints the message alone and exits with the class's `exit_code`: 1 where a check or
a run failed, 2 where the request itself cannot be carried out.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable


def printable(text: str) -> str:
    """A text for a terminal: names out of files cannot move its cursor, colour it, or pretend to be another line."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


class MergeVQError(Exception):
    """A failure with a message that is meant to be read by a person."""

    exit_code = 1

    def __str__(self) -> str:
        """The message without what a terminal would take for commands; names of files may hold such."""
        return "\n".join(map(printable, super().__str__().split("\n")))


class UsageError(MergeVQError, ValueError):
    """A value given by the user cannot be used: unknown name, impossible count, missing path."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration is inconsistent or holds an unknown key."""


class DeviceUnavailableError(MergeVQError, RuntimeError):
    """A device was asked for by name and cannot be used; the message holds the reason."""

    exit_code = 2


class FallbackError(MergeVQError, RuntimeError):
    """In strict mode: an operator would have left its device implementation for the reference."""


class CheckpointError(MergeVQError, RuntimeError):
    """A checkpoint is missing, truncated, tampered with, or belongs to another model."""


class ExportError(MergeVQError, RuntimeError):
    """A model cannot be made into graphs, or its graphs do not do what it does."""


class UnusableExportError(CheckpointError):
    """A folder of exported graphs cannot be run: it is none, damaged, or not for this run time."""

    exit_code = 2


class DataError(MergeVQError, RuntimeError):
    """The data set is empty, unreadable, or has more broken files than the limit allows."""


class NonFiniteError(MergeVQError, RuntimeError):
    """A loss or a gradient became infinite or NaN; the weights were left as they were."""


class StoppedError(MergeVQError):
    """A run was told to end by a signal and did so; the exit code is 128 + the signal's number."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


class OutputError(MergeVQError, OSError):
    """The output cannot be written; whatever was there before is still whole."""


_LONGEST_NAME = 160


class _Shown(reprlib.Repr):
    """Cuts what is long; Python itself refuses to write a number of thousands of digits."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 80

    def repr_int(self, x: int, level: int) -> str:
        """A number, or how long it is."""
        return repr(x) if abs(x) < 10**20 else f"a number of some {int(x.bit_length() * 0.30103) + 1} digits"


shown = _Shown().repr
"""A value as a message quotes it, however long or deep it is."""


def shortened(name: object) -> str:
    """A name or a path as a message says it: the first part of one that no message has room for."""
    text = str(name)
    return text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]}..."


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """One sentence for a mistyped name: the nearest known one, then all of them.

    Args:
        kind: what the name stands for, such as "preset".
        name: what the user wrote.
        known: every valid name, in the order in which they are to be listed.
    """
    names, name = list(known), shortened(name)
    by_lower = {candidate.lower(): candidate for candidate in names}
    near = difflib.get_close_matches(name.lower(), list(by_lower), n=1, cutoff=0.4)
    hint = f"; did you mean {by_lower[near[0]]!r}?" if near else ";"
    return f"unknown {kind} {name!r}{hint} known: {', '.join(names)}"
