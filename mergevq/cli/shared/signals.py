"""How a command ends when it is told to: by an exception, so that what is half made goes away, and with a sentence."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

_WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


@dataclass(slots=True)
class Told:
    """Which signal has told the command to end."""

    number: int = 0
    """0: none."""

    @property
    def exit_code(self) -> int:
        """What shells expect after this signal."""
        return 128 + self.number

    @property
    def sentence(self) -> str:
        """What is said last."""
        return _WORDS[signal.Signals(self.number)]


class TerminatedError(SystemExit):
    """SIGTERM as an exception; nothing that handles errors catches it."""


@contextmanager
def ending_by_signals() -> Iterator[Told]:
    """Within this context Ctrl-C and SIGTERM raise, and are remembered.

    An import that is interrupted may end in any error, a RecursionError say, or in none: what is remembered tells.
    Outside the main thread Python lets nobody listen, and nothing is changed. A run of training has handlers of its
    own within these.
    """
    told = Told()

    def end(number: int, _: FrameType | None) -> None:
        told.number = number
        raise KeyboardInterrupt if number == signal.SIGINT else TerminatedError(128 + number)

    before = {number: signal.getsignal(number) for number in _heard()}
    for number in before:
        signal.signal(number, end)
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def _heard() -> list[signal.Signals]:
    if threading.current_thread() is not threading.main_thread():
        return []
    return [number for number in _WORDS if signal.getsignal(number) != signal.SIG_IGN]
