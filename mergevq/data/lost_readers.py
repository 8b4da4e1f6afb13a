"""What is said when a process that reads data dies, stalls, or cannot hand over what it has read. Needs no PyTorch."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
from collections.abc import Iterable

SHARED = "/dev/shm"
"""Where processes that read leave the pixels for the one that waits for them."""

_NO_ROOM = re.compile(r"unable to (?:allocate|write|open|mmap|resize).*(?:shared memory|/torch_)", re.DOTALL)


def lost(codes: Iterable[int | None], option: str) -> str | None:
    """One sentence for the exit codes of processes that read; None where all are alive, or have ended as they should.

    Args:
        codes: as `Process.exitcode` gives them.
        option: what the user calls the number of these processes.
    """
    for code in codes:
        if code:
            return _ended(code, option) if code > 0 else _killed(signal.Signals(-code), option)
    return None


def found_no_room(text: str, option: str) -> str | None:
    """One sentence for an error of PyTorch that tells of too little shared memory; None for any other error."""
    return _no_room(option) if _NO_ROOM.search(text) else None


def stalled(seconds: float, option: str) -> str:
    """The sentence for processes that are alive and give nothing."""
    return (
        f"no batch came from the processes that read data for {seconds / 60:.0f} minutes: look whether the storage "
        f"answers, {_remedy(option)}, which waits for as long as it takes"
    )


def not_started(reason: str | None, option: str) -> str:
    """The sentence for processes that cannot be started."""
    return f"the processes that read data cannot be started ({reason or 'no reason'}): {_remedy(option)}"


def _ended(code: int, option: str) -> str:
    """`mergevq.data.workers` makes the exit code the number of the error, where there is one."""
    if code == errno.ENOSPC:
        return _no_room(option)
    if code == errno.EMFILE:
        return f"a process that reads data has too many files open: raise the limit with `ulimit -n`, {_remedy(option)}"
    return (
        f"a process that reads data ended with code {code}; what it said stands above, if it could say anything: "
        f"{_remedy(option)}"
    )


def _killed(number: signal.Signals, option: str) -> str:
    if number == signal.SIGBUS:  # the pages of a mapping that the file system had no room for
        return _no_room(option)
    why = ", as by a system that runs out of memory" if number == signal.SIGKILL else ""
    return f"a process that reads data was ended by {number.name}{why}: take fewer, {_remedy(option)}"


def _no_room(option: str) -> str:
    return f"a process that reads data found no room for a batch in {SHARED}{_size()}: {_remedy(option)}"


def _remedy(option: str) -> str:
    return f"enlarge {SHARED} or {option} 0"


def _size() -> str:
    """How large it is, in brackets."""
    try:
        return f" ({shutil.disk_usage(os.path.realpath(SHARED)).total / 2**20:.3g} MiB in all)"
    except OSError:
        return ""
