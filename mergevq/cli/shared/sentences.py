"""The one sentence that is owed for anything that goes wrong."""

from __future__ import annotations

import sys

from mergevq.data.lost_readers import found_no_room
from mergevq.errors import MergeVQError, printable

if sys.platform != "win32":
    import resource  # now: it is a file, too, of which there may be no more later

_TOO_MANY_FILES = "Too many open files"


def sentence(error: BaseException) -> str:
    """What went wrong, in one line."""
    text = str(error)
    no_room = found_no_room(text, "--workers") if isinstance(error, RuntimeError) else None
    if no_room is not None:
        return no_room
    if "Original Traceback" in text:  # raised in a process that reads data: the error proper comes last
        text = text.strip().splitlines()[-1].partition(": ")[2]
    text = printable(" ".join(text.split()))
    if _TOO_MANY_FILES in text:
        return _too_many_files(error, text)
    if isinstance(error, MergeVQError):
        return text
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return f"unexpected {type(error).__name__}: {text}; --debug shows where it came from"


def _too_many_files(error: BaseException, text: str) -> str:
    """The limit, and how it is raised."""
    limit = "" if sys.platform == "win32" else f" than {resource.getrlimit(resource.RLIMIT_NOFILE)[0]}"
    where = f" ({text})" if isinstance(error, MergeVQError) else ""
    return f"this process may have no more{limit} files open{where}; raise the limit first, with `ulimit -n 4096`"
