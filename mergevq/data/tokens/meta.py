"""The layout of a folder of token shards: its description, and that of each shard.

    meta.json              what the tokens are and how they were made: `TokenMeta`
    shard-00000/           pictures 0 to N - 1, each with its views one after another
        shard.json         rows, sizes in bytes, unreadable pictures: `ShardSummary`
        indices.npy        (rows, Kmax) int32 codes, 0 past the kept count of a row
        source.npy         (rows, L) uint16, the kept token that covers each position
        keep.npy           (rows,) int16 kept counts
        label.npy          (rows,) int32 classes
        checksums.npy      (rows,) uint32, CRC-32 of each record; shards of older versions have none

Which shard a picture belongs to is arithmetic, and a shard's folder gets its name only when it is whole.
So a shard is there or not, and nothing else has to be remembered. A shard names the description that it
was made under, so one from elsewhere is found out.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mergevq.config import from_dict, to_dict
from mergevq.data.images.splits import Split
from mergevq.documents import DocumentError, read_json
from mergevq.errors import ConfigError, DataError, UsageError, shown
from mergevq.files import sha256

META = "meta.json"
SUMMARY = "shard.json"
ARRAYS = ("indices", "source", "keep", "label")
CHECKSUMS = "checksums"
FORMAT = "mergevq-tokens"
VERSION = 1
_MOST = 2**15 - 1
_MOST_BITS = 31
_MOST_SHARDS = 10**6

RecordT = TypeVar("RecordT")


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenMeta:
    """What a folder of token shards holds; it is the same for every process that writes to it."""

    fingerprint: str
    """Of the tokenizer."""
    tokenizer: str
    """The name of its preset."""
    bits: int
    """d, bits of a code."""
    image_size: int
    """Pixels a side of the views."""
    grid: tuple[int, ...]
    """(h, w)."""
    counts: tuple[int, ...]
    """The kept counts that records have, ascending."""
    class_names: tuple[str, ...]
    """Labels are positions in it."""
    split: Split
    """Which of the pictures."""
    images: int
    """How many pictures, unreadable ones included."""
    data: str
    """A hash of the pictures' names and labels."""
    views: int
    """Records of each picture."""
    seed: int
    """Decides the crops and the kept counts."""
    shard_size: int
    """Pictures a shard."""

    def __post_init__(self) -> None:
        for name in ("images", "views", "shard_size", "bits"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not self.counts or list(self.counts) != sorted(set(self.counts)):
            raise ConfigError(f"kept counts are {self.counts}; they must ascend")
        if self.shards > _MOST_SHARDS:
            raise ConfigError(f"{self.images} pictures make {self.shards} shards; make larger ones")
        if (
            len(self.grid) != 2
            or min(self.grid) < 1
            or not 1 <= self.counts[0] <= self.counts[-1] <= self.length
        ):
            raise ConfigError(f"kept counts {self.counts} do not fit a grid of {self.grid}")
        if self.length > _MOST or self.bits > _MOST_BITS:
            raise ConfigError(
                f"{self.length} positions, {self.bits} bits: {_MOST} and {_MOST_BITS} fit the files"
            )

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    @property
    def length(self) -> int:
        """L, positions of the grid."""
        return self.grid[0] * self.grid[1]

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return -(-self.images // self.shard_size)

    @property
    def digest(self) -> str:
        """SHA-256 of the description, by which shards know that they belong to it."""
        return hashlib.sha256(json.dumps(to_dict(self), sort_keys=True).encode()).hexdigest()

    def shard_images(self, shard: int) -> range:
        """The numbers of the pictures in a shard."""
        first = shard * self.shard_size
        return range(first, min(first + self.shard_size, self.images))

    def layout(self, rows: int) -> dict[str, tuple[type[np.integer], tuple[int, ...]]]:
        """The type and the shape of each array of a shard."""
        return {
            "indices": (np.int32, (rows, self.counts[-1])),
            "source": (np.uint16, (rows, self.length)),
            "keep": (np.int16, (rows,)),
            "label": (np.int32, (rows,)),
        }


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A picture that could not be read: it has no records, and is not tried again."""

    image: int
    """Its number."""
    name: str
    """Its path."""
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardSummary:
    """What one shard holds."""

    meta: str
    """The digest of the `TokenMeta` that it was made under."""
    rows: int
    """Records: views of the pictures that could be read."""
    sizes: tuple[int, ...]
    """Bytes of the files of ARRAYS."""
    unreadable: tuple[Unreadable, ...] = ()
    """The pictures without records."""
    checksums: str = ""
    """SHA-256 of the file of CHECKSUMS; "" in shards of older versions."""

    def __post_init__(self) -> None:
        if self.rows < 0 or len(self.sizes) != len(ARRAYS):
            raise ConfigError(f"{self.rows} rows in {len(self.sizes)} files; {len(ARRAYS)} files are wanted")


def shard_folder(folder: Path, shard: int) -> Path:
    """Where a shard is once it is whole."""
    return folder / f"shard-{shard:05}"


def missing_shards(folder: Path, meta: TokenMeta) -> list[int]:
    """The shards that have not been made yet."""
    return [shard for shard in range(meta.shards) if not shard_folder(folder, shard).is_dir()]


def read_meta(folder: Path) -> TokenMeta:
    """The description of a folder of token shards.

    Raises:
        UsageError: there is none.
        DataError: it is damaged, or of another version of the format.
    """
    path = folder / META
    if not path.is_file():
        raise UsageError(f"{folder} holds no tokens (there is no {META}); `mergevq tokens` makes them")
    described = _read_json(path)
    if described.pop("format", None) != FORMAT:
        raise DataError(f"{path} does not describe tokens of mergevq")
    version = described.pop("version", None)
    if version != VERSION:
        raise DataError(f"{path} has version {shown(version)} and this mergevq reads version {VERSION}")
    return _record(TokenMeta, described, path)


def read_summary(folder: Path, meta: TokenMeta, shard: int) -> ShardSummary:
    """What a shard that is there holds, after checking that all of it is.

    Raises:
        DataError: the shard is damaged or was made under another description.
    """
    where = shard_folder(folder, shard)
    repair = "delete that folder and run `mergevq tokens` again"
    if not (where / SUMMARY).is_file():
        raise DataError(f"{where} has no {SUMMARY}; {repair}")
    summary = _record(ShardSummary, _read_json(where / SUMMARY), where / SUMMARY)
    if summary.meta != meta.digest:
        raise DataError(f"{where} belongs to other tokens than its {META} describes; {repair}")
    for name, size in zip(ARRAYS, summary.sizes, strict=True):
        path = where / f"{name}.npy"
        if not path.is_file():
            raise DataError(f"{path} is missing; {repair}")
        if path.stat().st_size != size:
            raise DataError(f"{path} has {path.stat().st_size} bytes instead of {size}; {repair}")
    path = where / f"{CHECKSUMS}.npy"
    if summary.checksums and not (path.is_file() and sha256(path) == summary.checksums):
        raise DataError(f"{path} is missing or damaged; {repair}")
    return summary


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = read_json(path)
    except DocumentError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise DataError(f"{path} is damaged: it holds no description")
    return values


def _record(kind: type[RecordT], values: dict[str, Any], path: Path) -> RecordT:
    try:
        return from_dict(kind, values)
    except (ConfigError, TypeError) as error:  # TypeError: a field is missing
        raise DataError(f"{path} is damaged: {error}") from error
