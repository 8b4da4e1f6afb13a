"""One process writes to a folder at a time: a lock that says who holds it, and that ends with its holder.

The operating system keeps the lock, not the file: one that a killed process left behind stops nobody.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mergevq.errors import OutputError, UsageError

logger = logging.getLogger(__name__)

LOCK = ".lock"
_descriptors: set[int] = set()


@contextmanager
def only_writer(folder: Path, name: str = LOCK, doing: str = "writes to it") -> Iterator[None]:
    """Within this context no other process enters it for the same folder and name, on any machine that sees it.

    Where the file system has no locks, or none over the network, a line of the log says so and nothing is checked.

    Args:
        folder: made where it is missing, and taken away again if nothing was written to it.
        name: of the lock's file in it, which goes away at the end.
        doing: what the other process does, for the message.

    Raises:
        UsageError: another process is within; its number, its machine and since when are named.
        OutputError: the folder cannot be written to.
    """
    path, made = folder / name, not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _locked(path, doing)
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror}") from error
    _descriptors.add(descriptor)
    try:
        yield
    finally:
        _descriptors.discard(descriptor)
        with suppress(OSError):
            path.unlink()  # before the lock is let go, or it would be another's file
        os.close(descriptor)
        if made:
            with suppress(OSError):
                folder.rmdir()


def holder(path: Path) -> str | None:
    """Who holds the lock of a file, in words; None where nobody does, or locks do not work."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return None
    try:
        _lock(descriptor)
    except BlockingIOError:
        return _described(path)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return None


def _locked(path: Path, doing: str) -> int:
    """A descriptor of the file, which holds its lock and says so."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(descriptor)
        except BlockingIOError as error:
            os.close(descriptor)
            raise UsageError(
                f"{path.parent} is in use: {_described(path)} {doing}; wait until it has ended, or choose another "
                "--out"
            ) from error
        except OSError as error:
            logger.warning(
                "the file system of %s has no locks (%s): nothing keeps a second run out of it, so start none",
                path.parent,
                error.strerror,
            )
        if _still_there(path, descriptor):
            break
        os.close(descriptor)  # the holder before removed the file between our two calls
    me = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    os.ftruncate(descriptor, 0)
    os.write(descriptor, json.dumps(me).encode())
    return descriptor


def _lock(descriptor: int) -> None:
    """Takes the lock or raises: BlockingIOError where another has it, OSError where there are no locks."""
    if sys.platform == "win32":
        raise OSError(0, "no flock on Windows")
    import fcntl

    # Not lockf: its lock is lost as soon as anything in this process closes the file.
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _still_there(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _described(path: Path) -> str:
    """The process that a lock's file names."""
    try:
        who = json.loads(path.read_text())
        return f"process {who['pid']} on {who['host']}, since {who['since']},"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _let_go() -> None:
    """In a forked process: a lock belongs to whoever took it, and ends with that one alone."""
    for descriptor in _descriptors:
        os.close(descriptor)
    _descriptors.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
