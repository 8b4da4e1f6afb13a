"""Where the command `mergevq` begins, also as `python -m mergevq`: ready for Ctrl-C before it imports the rest."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import NoReturn


def start() -> NoReturn:
    """Runs the command line of this process, and ends it."""
    _answer_signals_by(_leave)
    from mergevq.cli import main

    try:
        code = main()
    finally:
        _answer_signals_by(signal.SIG_DFL)  # what is still to be put away is not worth a second sentence
    sys.exit(code)


def _answer_signals_by(handler: object) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # as a shell has it for what it runs in the background
            signal.signal(number, handler)  # type: ignore[arg-type]


def _leave(number: int, _: FrameType | None) -> NoReturn:
    """Ends at once: nothing has begun, and an exception might be taken for a module that cannot be imported."""
    sentence = "interrupted" if number == signal.SIGINT else "terminated"
    try:
        os.write(2, f"mergevq: {sentence}\n".encode())
    finally:
        os._exit(128 + number)


if __name__ == "__main__":
    start()
