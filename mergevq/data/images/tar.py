"""Pictures in tar shards, WebDataset's way, read at random.

Each shard is indexed once (where each member lies); a picture is then one seek and one read. No file
stays open between reads, so forked workers share no position and thousands of shards need no
descriptors.
"""

from __future__ import annotations

import glob
import io
import os
import posixpath
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from mergevq.data.images.folder import is_picture
from mergevq.data.images.patterns import expand_braces
from mergevq.data.images.splits import TRAIN, VALIDATION, Split, select
from mergevq.errors import DataError, UsageError

_COMPRESSION = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}
_BLOCK = 512
_SPLIT_WORD = re.compile(rf"(?:^|[-_.])({'|'.join((TRAIN, *VALIDATION))})(?=[-_.\d]|$)")


class Member(NamedTuple):
    """A picture inside a shard."""

    key: str
    shard: int
    offset: int
    size: int
    label: int | None


class TarSource:
    """The pictures of one split of a list of shards.

    Labels are the `.cls` files beside the pictures where there are any, else their folders.
    Members below `train/` and `val/` (or `test/`) are the splits, and so are shards in such folders or
    with such a word in their names (`imagenet-train-000001.tar`); else `holdout` of them is held out.

    Args:
        shards: paths of uncompressed tar files.
        root: the folder whose subfolders may name splits.
        split: which part.
        holdout: share kept for validation where no splits are named.

    Raises:
        DataError: a shard is compressed, truncated or no tar file, holds no picture for this split,
            or only some of the pictures have a `.cls` file.
    """

    max_scale = 1.0

    def __init__(self, shards: list[Path], root: Path, split: Split, holdout: float) -> None:
        members = [
            member
            for number, shard in enumerate(shards)
            for member in index_shard(shard, number, _split_of(shard, root))
        ]
        if not members:
            raise DataError(f"no pictures in {_listed(shards)}")
        selection = select([member.key for member in members], split, holdout)
        chosen = [members[row] for row in selection.rows]
        self.shards = [str(shard) for shard in shards]
        self.classes = selection.classes
        self._labels = selection.labels
        if any(member.label is not None for member in members):
            self.classes, self._labels = _labelled(members, chosen, self.shards)
        self._keys = np.array([os.fsencode(member.key) for member in chosen])
        self._places = np.array([member[1:4] for member in chosen], np.int64)  # (N, 3)

    def __len__(self) -> int:
        return len(self._keys)

    def name(self, index: int) -> str:
        """The path of the shard and of the picture in it."""
        return f"{self.shards[self._places[index, 0]]}:{os.fsdecode(self._keys[index])}"

    def label(self, index: int) -> int:
        """The class of a picture, a position in `classes`."""
        return int(self._labels[index])

    def open(self, index: int) -> Image.Image:
        """The picture, opened but not decoded."""
        shard, offset, size = self._places[index].tolist()
        with open(self.shards[shard], "rb") as file:
            file.seek(offset)
            return Image.open(io.BytesIO(file.read(size)))


def find_shards(pattern: str) -> list[Path]:
    """The shards that a path stands for.

    Args:
        pattern: a tar file, or a pattern with braces (`{000..012}`, `{a,b}`), `*`, `?` or `[...]`.

    Raises:
        UsageError: a shard is missing or nothing matches.
    """
    if os.path.exists(pattern):
        return [Path(pattern)]
    shards: list[Path] = []
    for name in expand_braces(pattern):
        found = [name] if os.path.exists(name) else sorted(glob.glob(name))
        if not found:
            raise UsageError(f"there is no shard {name}, which {pattern} names")
        shards.extend(Path(path) for path in found)
    return shards


def index_shard(path: Path, number: int = 0, prefix: str = "") -> list[Member]:
    """Where the pictures of a shard lie.

    Args:
        path: an uncompressed tar file.
        number: the shard's position in the list of shards.
        prefix: what to put before the keys.

    Raises:
        DataError: the file is compressed, truncated or no tar file.
    """
    try:
        with open(path, "rb") as file:
            _refuse_compressed(path, file.read(6))
            file.seek(0)
            entries = list(_entries(path, file))
    except (tarfile.TarError, OSError, ValueError) as error:
        raise DataError(f"cannot read the shard {path}: {error}; copy or download it again") from error
    labels = {_stem(name): label for name, _, _, label in entries if label is not None}
    return [
        Member(prefix + name, number, offset, size, labels.get(_stem(name)))
        for name, offset, size, label in entries
        if label is None
    ]


def _entries(path: Path, file: io.BufferedReader) -> Iterator[tuple[str, int, int, int | None]]:
    """(name, offset, size, None) of each picture, (name, offset, size, label) of each `.cls` file."""
    end = os.fstat(file.fileno()).st_size
    with tarfile.open(fileobj=file, mode="r:") as archive:
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # else every header stays in memory
            name = posixpath.normpath(member.name)
            if not member.isreg() or posixpath.basename(name).startswith("."):
                continue
            if member.offset_data + member.size > end:
                raise tarfile.ReadError(f"it is truncated inside {name}")
            if is_picture(name):
                yield name, member.offset_data, member.size, None
            elif name.endswith(".cls"):
                yield name, member.offset_data, member.size, _read_label(archive, member)
        file.seek(archive.offset)
        # tarfile takes a header that it cannot read for the end of the archive.
        tail = file.read(_BLOCK)
        if tail.strip(b"\0") or 0 < len(tail) < _BLOCK:
            raise tarfile.ReadError(f"it is truncated or damaged at byte {archive.offset}")


def _read_label(archive: tarfile.TarFile, member: tarfile.TarInfo) -> int:
    content = archive.extractfile(member)
    text = content.read().decode("ascii", "replace").strip() if content else ""
    if not text.isdecimal() or len(text) > 6:
        raise ValueError(f"{member.name} holds {text[:20]!r}; a class number below a million is wanted")
    return int(text)


def _labelled(
    all_members: list[Member], chosen: list[Member], shards: list[str]
) -> tuple[list[str], np.ndarray]:
    for member in all_members:
        if member.label is None:
            raise DataError(
                f"{shards[member.shard]}:{member.key} has no .cls file and other pictures have one; "
                "give every picture its class number or none"
            )
    count = 1 + max(member.label or 0 for member in all_members)
    return [str(label) for label in range(count)], np.array([member.label for member in chosen], np.int64)


def _split_of(shard: Path, root: Path) -> str:
    """`train/`, `val/` and the like for a shard whose folder or name says so, else nothing."""
    folder = shard.relative_to(root).parts[:-1] if shard.is_relative_to(root) else ()
    if folder and folder[0] in (TRAIN, *VALIDATION):
        return f"{folder[0]}/"
    word = _SPLIT_WORD.search(shard.name)
    return f"{word[1]}/" if word else ""


def _refuse_compressed(path: Path, head: bytes) -> None:
    for magic, command in _COMPRESSION.items():
        if head.startswith(magic):
            raise DataError(
                f"{path} is compressed, and shards are read at random; decompress it: {command} {path}"
            )


def _stem(name: str) -> str:
    """WebDataset's key: the path up to the first dot of the file's name."""
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.split(".", 1)[0]


def _listed(shards: list[Path]) -> str:
    names = [str(shard) for shard in shards[:3]]
    return ", ".join(names) + (f" and {len(shards) - 3} more" if len(shards) > 3 else "")
