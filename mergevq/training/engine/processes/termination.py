"""SIGTERM where there is no checkpoint to write: the run ends at once and says what is lost. Needs no Lightning."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from mergevq.errors import StoppedError


@contextmanager
def ended_at_once(saying: str) -> Iterator[None]:
    """Within this context SIGTERM ends what is done, which leaves nothing behind.

    Args:
        saying: what that means, for the message.

    Raises:
        StoppedError: the signal came.
    """

    def leave(number: int, _: FrameType | None) -> None:
        raise StoppedError(f"ended by {signal.Signals(number).name}: {saying}", number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
