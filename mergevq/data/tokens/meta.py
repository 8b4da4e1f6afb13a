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

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np

from mergevq.config import from_dict, to_dict
from mergevq.data.listing.splits import Split
from mergevq.errors import ConfigError, DataError, UsageError, shown
from mergevq.ranges import Length, Range, check_numbers
from mergevq.storage.documents import DocumentError, read_json
from mergevq.storage.files import sha256

META = "meta.json"
SUMMARY = "shard.json"
ARRAYS = ("indices", "source", "keep", "label")
CHECKSUMS = "checksums"
FORMAT = "mergevq-tokens"
VERSION = 1
_MOST = 2**15 - 1
_MOST_BITS = 31
_MOST_SHARDS = 10**6

_Position = Annotated[int, Range(1, _MOST)]

RecordT = TypeVar("RecordT")


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenMeta:
    """What a folder of token shards holds; it is the same for every process that writes to it."""

    fingerprint: str
    """Of the tokenizer."""
    tokenizer: str
    """The name of its preset."""
    bits: Annotated[int, Range(1, _MOST_BITS)]
    """d, bits of a code."""
    image_size: Annotated[int, Range(1, 2**20)]
    """Pixels a side of the views."""
    grid: Annotated[tuple[_Position, ...], Length(2, 2)]
    """(h, w)."""
    counts: Annotated[tuple[_Position, ...], Length(1, _MOST)]
    """The kept counts that records have, ascending."""
    class_names: tuple[str, ...]
    """Labels are positions in it."""
    split: Split
    """Which of the pictures."""
    images: Annotated[int, Range(1, 2**40)]
    """How many pictures, unreadable ones included."""
    data: str
    """A hash of the pictures' names and labels."""
    views: Annotated[int, Range(1, 10**6)]
    """Records of each picture."""
    seed: Annotated[int, Range(0, 2**64)]
    """Decides the crops and the kept counts."""
    shard_size: Annotated[int, Range(1, 2**40)]
    """Pictures a shard."""

    def __post_init__(self) -> None:
        check_numbers(self, "")
        if list(self.counts) != sorted(set(self.counts)):
            raise ConfigError(f"kept counts are {self.counts}; they must ascend")
        if self.shards > _MOST_SHARDS:
            raise ConfigError(f"{self.images} pictures make {self.shards} shards; make larger ones")
        if self.counts[-1] > self.length:
            raise ConfigError(f"kept counts {self.counts} do not fit a grid of {self.grid}")
        if self.length > _MOST:
            raise ConfigError(f"a grid of {self.grid} has {self.length} positions; {_MOST} fit the files")

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
    rows: Annotated[int, Range(0, 2**40)]
    """Records: views of the pictures that could be read."""
    sizes: Annotated[tuple[Annotated[int, Range(0, 2**50)], ...], Length(len(ARRAYS), len(ARRAYS))]
    """Bytes of the files of ARRAYS."""
    unreadable: tuple[Unreadable, ...] = ()
    """The pictures without records."""
    checksums: str = ""
    """SHA-256 of the file of CHECKSUMS; "" in shards of older versions."""

    def __post_init__(self) -> None:
        check_numbers(self, "")


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
    due = (len(meta.shard_images(shard)) - len(summary.unreadable)) * meta.views
    if summary.meta != meta.digest:
        raise DataError(f"{where} belongs to other tokens than its {META} describes; {repair}")
    if summary.rows != due:
        raise DataError(f"{where} has {summary.rows} records and should have {due}; {repair}")
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
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]  # always a dataclass
    needed = (field.name for field in fields if field.default is dataclasses.MISSING)
    missing = next((name for name in needed if name not in values), None)
    if missing is not None:
        raise DataError(f"{path} is damaged: it has no {missing}")
    try:
        return from_dict(kind, values)
    except (ConfigError, TypeError) as error:
        raise DataError(f"{path} is damaged: {error}") from error
