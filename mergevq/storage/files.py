"""Files that are whole or not there at all, and the hash by which they are known. Needs no PyTorch.

A link is followed, and what is no regular file (a device, a FIFO, this process's standard output) is written to: only
regular files are ever replaced.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from safetensors import SafetensorError

from mergevq.errors import OutputError, UsageError, shown
from mergevq.storage import leftovers

_PATTERN = re.compile(r"\{[^{}]+\}")
_LONGEST_NAME = 255
_LONGEST_PATH = 4000
_MISTAKES = (
    (b"version https://git-lfs", "a git-lfs pointer, not the file itself; `git lfs pull` fetches that"),
    (b"<!doctype html", "a web page, not the file itself; download the file, not the page that shows it"),
    (b"<html", "a web page, not the file itself; download the file, not the page that shows it"),
    (b"\x1f\x8b", "compressed with gzip; unpack it first"),
)


def expanded(path: str | Path) -> Path:
    """A path as a user writes it, in which ~ and ~name are home folders.

    Raises:
        UsageError: there is no such user, or no file can have this name.
    """
    named = shown(str(path))
    try:
        place = Path(path).expanduser()
        lengths = [len(os.fsencode(part)) for part in place.parts]
    except RuntimeError as error:
        raise UsageError(f"{path} cannot be resolved: there is no such home folder") from error
    except UnicodeEncodeError as error:
        raise UsageError(f"{named} is no path: it holds characters that no name can") from error
    # Braces of a pattern stand for many names, of which none need be long.
    too_long = max(lengths, default=0) > _LONGEST_NAME or sum(lengths) > _LONGEST_PATH
    if (too_long and not _PATTERN.search(str(path))) or "\0" in str(path):
        raise UsageError(f"{named} is no path: no file can have this name")
    return place


def mistaken_for(path: Path) -> str | None:
    """What a file is that was taken for another one, and what to do; None where nothing speaks for a mistake."""
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError:
        return None  # whoever reads it says why it cannot be read
    if not head:
        return "empty; copy or download it again"
    start = head.lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    return next((what for begin, what in _MISTAKES if start.startswith(begin)), None)


_PATIENCE = 10.0
"""Seconds that a process waits for another to rename its files."""
_TRIES, _PAUSE = 8, 0.05
"""Of a reader whose files are replaced: at the most, and the seconds by which the time between two grows."""

FoundT = TypeVar("FoundT")


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def atomic(*paths: Path, follow: bool = True) -> Iterator[list[Path]]:
    """Temporary paths whose content `paths` have when the block ends without an error.

    Regular files are replaced: their temporary paths are in the same folders, and all of them are on the disk before
    the first is renamed, so that files which belong together change together.
    """
    files: list[_Written] = []
    try:
        for path in paths:
            files.append(_Written.begun(path, follow))
        yield [file.temporary for file in files]
        for file in files:
            file.settle()
        with _taking_turns(files[0].target.parent) if len(files) > 1 else contextlib.nullcontext():
            for file in files:
                file.publish()
    finally:
        for file in files:
            file.temporary.unlink(missing_ok=True)


def is_regular(path: Path) -> bool:
    """Whether a path is to be replaced as a whole: a regular file, or nothing yet; links are followed.

    Standard output and standard error are not, whatever they lead to: others write there too.
    """
    found = _stat(path)
    return found is None or (stat.S_ISREG(found.st_mode) and _descriptor(found) is None)


@contextlib.contextmanager
def writing(where: Path) -> Iterator[None]:
    """Turns whatever goes wrong while writing into one sentence."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise OutputError(f"cannot write {where}: {reason}; what was there before is unchanged") from error


def write_atomically(path: Path, write: Callable[[Path], object], *, follow: bool = True) -> None:
    """Calls `write` with a temporary path, then has `path` hold what it wrote there; see `atomic`.

    Args:
        path: the file.
        write: writes it.
        follow: whether a link stays, and the file that it leads to is replaced; else the link is.

    Raises:
        OutputError: it cannot be written; an older file at `path` is unchanged.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path, follow=follow) as (temporary,):
            write(temporary)


def read_steadily(paths: Iterable[Path], read: Callable[[], FoundT]) -> FoundT:
    """What `read` gives while nobody replaces the files: those that belong together are not of two writers.

    Args:
        paths: the files that it reads.
        read: is called again where one of them changed meanwhile, whether it failed or not.
    """
    paths = list(paths)
    for attempt in range(_TRIES):
        before = [_state(path) for path in paths]
        try:
            found = read()
        except Exception:
            if before == [_state(path) for path in paths]:
                raise
        else:
            if before == [_state(path) for path in paths]:
                return found
        time.sleep(_PAUSE * attempt)
    return read()


@dataclass(frozen=True, slots=True)
class _Written:
    """A file that is being written."""

    target: Path
    """Where links lead to."""
    temporary: Path
    mode: int | None
    """Of the file that is replaced, or of a new one; None where the target is written to as it is."""

    @classmethod
    def begun(cls, path: Path, follow: bool) -> _Written:
        """With an empty temporary file."""
        found = _stat(path)
        target = Path(os.path.realpath(path if follow else path.parent)) / ("" if follow else path.name)
        if found is not None and stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(0, "it is a folder")
        if not is_regular(path):
            handle, name = tempfile.mkstemp()
            os.close(handle)
            return cls(path, Path(name), None)
        leftovers.clear(target.parent)
        temporary = leftovers.hidden(target)
        handle = os.open(
            temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666
        )  # less what the umask takes away
        try:
            mode = (found or os.fstat(handle)).st_mode
        finally:
            os.close(handle)
        return cls(target, temporary, stat.S_IMODE(mode))

    def settle(self) -> None:
        """Waits until it is on the disk."""
        if self.mode is None:
            return
        with self.temporary.open("rb") as file:
            os.fsync(file.fileno())
        self.temporary.chmod(self.mode)

    def publish(self) -> None:
        """Has the target hold it."""
        if self.mode is not None:
            self.temporary.replace(self.target)
            return
        with self.temporary.open("rb") as file, _opened(self.target) as target:
            shutil.copyfileobj(file, target)


def _state(path: Path) -> tuple[int, ...] | None:
    found = _stat(path)
    return None if found is None else (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _descriptor(found: os.stat_result) -> int | None:
    """Standard output or standard error, where that is the file; of a closed one the number is another file's."""
    for descriptor, stream in ((1, sys.__stdout__), (2, sys.__stderr__)):
        with contextlib.suppress(OSError):
            if stream is not None and os.path.samestat(found, os.fstat(descriptor)):
                return descriptor
    return None


def _opened(path: Path) -> BinaryIO:
    """For writing to what is there, after what this process printed where both are the same."""
    descriptor = _descriptor(path.stat())
    if descriptor is None:
        return os.fdopen(os.open(path, os.O_WRONLY), "wb")  # nothing is made, and nothing cut off
    stream = sys.stdout if descriptor == 1 else sys.stderr
    if stream is not None:
        stream.flush()
    return os.fdopen(os.dup(descriptor), "wb")


@contextlib.contextmanager
def _taking_turns(folder: Path) -> Iterator[None]:
    """Has one process at a time rename files that belong together, or those of two would be mixed.

    Where the file system has no such locks, or another holds one for very long, that is left to chance.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        _wait_for(handle)
        yield
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_UN)  # closing does not, where a forked process has the handle too
        os.close(handle)


def _wait_for(handle: int) -> None:
    import fcntl

    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.01)
        except OSError:
            return
        else:
            return
