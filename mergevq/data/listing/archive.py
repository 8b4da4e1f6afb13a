"""Where the files of a tar archive lie: one pass over its headers, none over its contents.

Archives that were joined by `cat` are read one after another. A later member replaces an earlier one of its
name, as it does where an archive is unpacked. Links are followed inside the archive. The pieces of a sparse
member are known one by one, so that a read puts zeros between them.
"""

from __future__ import annotations

import os
import posixpath
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from mergevq.data.listing.links import follow_links
from mergevq.data.listing.names import is_hidden
from mergevq.data.listing.passed_over import HIDDEN, REPLACED, SPECIAL, PassedOver
from mergevq.errors import DataError

_COMPRESSION = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}
_BLOCK = 512
_CHUNK = 2**20
_LARGEST_SPARSE = 2**30
"""Bytes that a sparse member may have with its holes, of which a file of a kilobyte can claim any number."""


class Place(NamedTuple):
    """Where a file's bytes lie in an archive.

    Attributes:
        offset: of the first byte.
        size: bytes of the file.
        pieces: of a sparse file, (offset in the file, bytes), which lie one behind the other in the archive.
    """

    offset: int
    size: int
    pieces: tuple[tuple[int, int], ...] | None = None

    @property
    def stored(self) -> int:
        """Bytes in the archive."""
        return self.size if self.pieces is None else sum(length for _, length in self.pieces)

    def read(self, archive: BinaryIO, most: int | None = None) -> bytes:
        """The file's bytes, or the first so many."""
        size = self.size if most is None else min(most, self.size)
        archive.seek(self.offset)
        if self.pieces is None:
            return archive.read(size)
        content = bytearray(self.size)
        for offset, length in self.pieces:
            content[offset : offset + length] = archive.read(length)
        return bytes(content[:size])


def check_readable(path: Path) -> None:
    """Makes sure that a path is a plain file, which a FIFO is not: opening one would wait for ever.

    Raises:
        DataError: it is something else, or compressed.
        OSError: it cannot be opened.
    """
    if not path.is_file():
        raise DataError(f"{path} is no regular file; give a tar file")
    with open(path, "rb") as file:
        head = file.read(6)
    for magic, command in _COMPRESSION.items():
        if head.startswith(magic):
            raise DataError(
                f"{path} is compressed, and shards are read at random; decompress it: {command} {path}"
            )


def index_archive(file: BinaryIO, passed: PassedOver) -> dict[str, Place]:
    """Where the files of an archive lie, by their names, in the archive's order; hidden ones are left out.

    Args:
        file: an uncompressed tar file.
        passed: where what is left out is counted.

    Raises:
        tarfile.TarError, ValueError, OSError: the archive is truncated or damaged.
    """
    end = os.fstat(file.fileno()).st_size
    files: dict[str, Place] = {}
    links: dict[str, str] = {}
    for member in _members(file, end):
        name = _name(member.name)
        if member.isreg():
            if files.pop(name, None) or links.pop(name, None):
                passed.add(REPLACED, name)
            files[name] = _place(member, end)
        elif member.islnk() or member.issym():
            if files.pop(name, None):
                passed.add(REPLACED, name)
            folder = posixpath.dirname(name) if member.issym() else ""
            links[name] = _name(posixpath.join(folder, member.linkname))
            if member.islnk() and links[name] in files:  # at once: a later member may replace the file
                files[name] = files[links.pop(name)]
        elif member.type in tarfile.SUPPORTED_TYPES and not member.isdir():
            passed.add(SPECIAL, name)
    if links:
        files |= follow_links(files, links, passed)
    return _without_hidden(files, passed)


def _members(file: BinaryIO, end: int) -> Iterator[tarfile.TarInfo]:
    """The members of all archives in a file."""
    start = 0
    while start < end or start == 0:
        file.seek(start)
        with tarfile.open(fileobj=file, mode="r:") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # else every header stays in memory
                yield member
            start = _next_archive(file, archive.offset, end)


def _next_archive(file: BinaryIO, stopped: int, end: int) -> int:
    """Where another archive begins behind the zeros that end one; the end of the file where none does."""
    file.seek(stopped)
    tail = file.read(_BLOCK)
    # tarfile takes a header that it cannot read for the end of the archive.
    if tail.strip(b"\0") or 0 < len(tail) < _BLOCK:
        raise tarfile.ReadError(f"it is truncated or damaged at byte {stopped}")
    for start in range(stopped, end, _CHUNK):
        file.seek(start)
        zeros = len(chunk := file.read(_CHUNK)) - len(chunk.lstrip(b"\0"))
        if zeros < len(chunk):
            return start + zeros // _BLOCK * _BLOCK
    return end


def _name(name: str) -> str:
    """A member's path, as it is where the archive is unpacked: below the folder, whatever it is called."""
    name = posixpath.normpath(name).lstrip("/")
    while name.startswith("../"):
        name = name[3:]
    return "" if name in (".", "..") else name


def _place(member: tarfile.TarInfo, end: int) -> Place:
    pieces: Any = member.sparse  # pairs, whatever typeshed says
    place = Place(member.offset_data, member.size, None if pieces is None else tuple(map(tuple, pieces)))
    if place.offset + place.stored > end:
        raise tarfile.ReadError(f"it is truncated inside {member.name}")
    if place.pieces is not None and (
        place.size > _LARGEST_SPARSE or any(start + length > place.size for start, length in place.pieces)
    ):
        raise tarfile.ReadError(
            f"the sparse member {member.name} claims pieces outside of its {place.size} bytes"
        )
    return place


def _without_hidden(files: dict[str, Place], passed: PassedOver) -> dict[str, Place]:
    """The files that are the user's; hidden ones were needed until here, as links may lead to them."""
    folders = {name.rpartition("/")[0] for name in files}
    clutter = {folder for folder in folders if any(map(is_hidden, folder.split("/")))}
    hidden = [
        name for name in files if name.rpartition("/")[0] in clutter or is_hidden(name.rpartition("/")[2])
    ]
    for name in hidden:
        passed.add(HIDDEN, name)
        del files[name]
    return files
