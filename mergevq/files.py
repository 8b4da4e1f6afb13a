"""Files: paths as users write them, what is whole or not there at all, hashes. Needs no PyTorch."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from safetensors import SafetensorError

from mergevq.errors import OutputError, UsageError, shown

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


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def atomic(*paths: Path) -> Iterator[list[Path]]:
    """Temporary paths in the same folders that become `paths` when the block ends without an error.

    All of them are on the disk before the first is renamed, so that files which belong together change
    together.
    """
    temporaries: list[Path] = []
    try:
        for path in paths:
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            os.close(handle)
            temporaries.append(Path(name))
        yield temporaries
        for temporary in temporaries:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.chmod(0o666 & ~_umask())
        for temporary, path in zip(temporaries, paths, strict=True):
            temporary.replace(path)
    finally:
        for temporary in temporaries:
            temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextlib.contextmanager
def writing(where: Path) -> Iterator[None]:
    """Turns whatever goes wrong while writing into one sentence."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise OutputError(f"cannot write {where}: {reason}; what was there before is unchanged") from error


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Calls `write` with a temporary path, then renames it to `path`.

    Raises:
        OutputError: it cannot be written; an older file at `path` is unchanged.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as (temporary,):
            write(temporary)
