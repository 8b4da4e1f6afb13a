"""Hidden names for what is half written, which tell whose they are: what a killed process left is found and cleared.

A name ends in the process that made it, `.last.ckpt.6f1c2a90-4711-88321-a1b2c3d4.part` say: the machine, the process
and when that started, and a random part. What a running process writes is never touched.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

PART = ".part"
_LONGEST = 255
_TAIL = re.compile(r"\.(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-(?P<start>\d+)-[0-9a-f]{8}(?P<suffix>\.[a-z]+)")
_LONG_AGO = 24 * 3600
"""Seconds after which nobody writes any more to what a process of another machine began."""


def hidden(path: Path, suffix: str = PART) -> Path:
    """A name beside a path that nobody has, and that tells that it is this process's."""
    pid = os.getpid()
    tail = f".{_host()}-{pid}-{_started(pid) or 0}-{secrets.token_hex(4)}{suffix}"
    room = _LONGEST - len(tail) - 1
    name = path.name if len(os.fsencode(path.name)) <= room else path.name[: room // 4]
    return path.with_name(f".{name}{tail}")


def abandoned(folder: Path, suffix: str = PART, name: str | None = None) -> Iterator[Path]:
    """What processes that have ended left in a folder.

    Args:
        folder: may be missing.
        suffix: that `hidden` was given.
        name: of the path that `hidden` was given; None is any.
    """
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            found = _TAIL.search(entry.name) if entry.name.startswith(".") else None
            if found is None or found["suffix"] != suffix or found.end() != len(entry.name):
                continue
            if name in (None, entry.name[1 : found.start()]) and _has_ended(found, entry):
                yield Path(entry.path)


@functools.lru_cache(maxsize=1024)  # once a folder: pictures by the ten thousand go to the same
def clear(folder: Path) -> None:
    """Removes what processes that have ended left half written in a folder; once in the life of this process."""
    for path in abandoned(folder):
        remove(path)


def remove(path: Path) -> None:
    """Removes a file or a folder, as far as possible."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _has_ended(owner: re.Match[str], entry: os.DirEntry[str]) -> bool:
    if owner["host"] != _host():
        with suppress(OSError):
            return time.time() - entry.stat(follow_symlinks=False).st_mtime > _LONG_AGO
        return False
    started = _started(int(owner["pid"]))
    return started is None or (started > 0 and started != int(owner["start"]))


@functools.cache
def _host() -> str:
    """This machine, and which processes can be seen from here: containers may share a name and not their numbers."""
    space = ""
    with suppress(OSError):
        space = os.readlink("/proc/self/ns/pid")
    return hashlib.sha256(f"{socket.gethostname()} {space}".encode()).hexdigest()[:8]


def _started(pid: int) -> int | None:
    """When a process started, in ticks since the machine did; 0 where that cannot be seen, None if there is none."""
    with suppress(OSError, ValueError, IndexError):
        # After the name in brackets, which may hold anything: fields 3 and up, of which 22 is the start.
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return None
    except OSError:  # it is there, and somebody else's
        return 0
    return 0
