"""Standard output and standard error that never cost a result: what cannot be written is given up, not raised.

A reader that has gone away, a full disk, a terminal that was closed, a stream that was never there, an encoding
without the letters of a path: none of them ends hours of work. What went wrong is told when the work is done.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any, TextIO


class SteadyStream:
    """A text stream whose writing never raises.

    Args:
        stream: what is written to.

    Attributes:
        failure: what it could not be written for.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failure: OSError | ValueError | None = None

    def write(self, text: str) -> int:
        """Writes what can be written."""
        if self.failure is None:
            try:
                self._stream.write(self._encodable(text))
            except (OSError, ValueError) as error:  # ValueError: it was closed
                self.failure = error
        return len(text)

    def flush(self) -> None:
        """Flushes what can be flushed."""
        if self.failure is None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self.failure = error

    def discard(self) -> None:
        """Keeps the interpreter from complaining when it flushes the stream at its end."""
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _encodable(self, text: str) -> str:
        """The text, with escapes for letters that the stream has no bytes for."""
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        return text.encode(encoding, "backslashreplace").decode(encoding)


@contextmanager
def steady_streams() -> Iterator[SteadyStream]:
    """Within this context standard output, which is given, and standard error are steady; afterwards as before."""
    _fill_descriptors()
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        out, err = SteadyStream(sys.stdout or nowhere), SteadyStream(sys.stderr or nowhere)
        with redirect_stdout(out), redirect_stderr(err):
            try:
                yield out
            finally:
                out.flush()
                err.flush()


def _fill_descriptors() -> None:
    """Opens those of the first three that are closed: the next file that is opened would get the number of one."""
    if None in (sys.stdin, sys.stdout, sys.stderr):
        while (descriptor := os.open(os.devnull, os.O_RDWR)) < 3:
            os.set_inheritable(descriptor, True)
        os.close(descriptor)
