"""Pictures in tar shards, WebDataset's way, read at random.

Each shard is indexed once (where each member lies); a picture is then one seek and one read. No file
stays open between reads, so forked workers share no position and thousands of shards need no
descriptors.
"""

from __future__ import annotations

import glob
import os
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from mergevq.data.images.formats.opening import open_picture
from mergevq.data.listing.archive import Place, check_readable, index_archive
from mergevq.data.listing.catalogue import catalogue
from mergevq.data.listing.labels import Labels, Reader, unlabelled
from mergevq.data.listing.layout import TRAIN, split_word, split_words
from mergevq.data.listing.passed_over import ARCHIVE, PassedOver
from mergevq.data.listing.patterns import expand_braces
from mergevq.data.listing.splits import Annotations, Selection
from mergevq.errors import DataError, UsageError, shortened


class Shard(NamedTuple):
    """A tar file and what it holds.

    Attributes:
        path: the tar file.
        keys: of its pictures, the split before those that the shard's own name or folder puts there.
        places: where they lie in it.
        labels: what files beside them say.
        annotations: classes of pictures by folders, named as in the keys, and file names.
    """

    path: Path
    keys: list[str]
    places: list[Place]
    labels: Labels
    annotations: dict[str, dict[str, str]]


class TarSource:
    """The pictures of one split of a list of shards.

    Args:
        shards: what `index_shards` found.
        selection: which of their pictures, and their labels.
    """

    max_scale = 1.0

    def __init__(self, shards: Sequence[Shard], selection: Selection) -> None:
        places = [(number, place) for number, shard in enumerate(shards) for place in shard.places]
        keys = all_keys(shards)
        chosen = [places[row] for row in selection.rows]
        self.shards = [str(shard.path) for shard in shards]
        self.classes = selection.classes
        self._labels = selection.labels
        # Arrays instead of lists: forked workers then share their memory.
        self._keys = np.array([os.fsencode(keys[row]) for row in selection.rows])
        self._places = np.array([(number, place.offset, place.size) for number, place in chosen], np.int64)
        self._sparse = {row: place for row, (_, place) in enumerate(chosen) if place.pieces is not None}

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
        place = self._sparse.get(index, Place(offset, size))
        with open(self.shards[shard], "rb") as file:
            return open_picture(place.read(file))


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
            raise UsageError(f"there is no shard {shortened(name)}, which {shortened(pattern)} names")
        shards.extend(Path(path) for path in found)
    return shards


def index_shards(paths: Sequence[Path], root: Path, passed: PassedOver) -> list[Shard]:
    """What some shards hold.

    Members below `train/` and `val/` are the splits, and so are shards in such folders or with such a word in
    their names (`imagenet-train-000001.tar`).

    Args:
        paths: uncompressed tar files.
        root: the folder whose subfolders may name splits.
        passed: where what is no picture is counted.

    Raises:
        DataError: a shard is compressed, truncated or no tar file, or its labels are incomplete.
    """
    shards = [
        _index_shard(path, split, passed) for path, split in zip(paths, _splits_of(paths, root), strict=True)
    ]
    if all_numbers(shards) is not None:
        for shard in shards:
            if shard.keys and shard.labels.numbers is None:
                refusal = shard.labels.refusal
                raise DataError(refusal) if refusal else unlabelled(f"{shard.path}:{shard.keys[0]}")
    return shards


def all_keys(shards: Sequence[Shard]) -> list[str]:
    """The keys of all pictures, shard by shard."""
    return list(chain.from_iterable(shard.keys for shard in shards))


def all_numbers(shards: Sequence[Shard]) -> list[int] | None:
    """The class numbers of all pictures, shard by shard; None where there are none."""
    numbers = [number for shard in shards for number in shard.labels.numbers or ()]
    return numbers or None


def all_annotations(shards: Sequence[Shard]) -> Annotations:
    """The classes of pictures by their folders and file names."""
    return {folder: table for shard in shards for folder, table in shard.annotations.items()}


def _index_shard(path: Path, split: str | None, passed: PassedOver) -> Shard:
    with _reading(path):
        check_readable(path)
        with open(path, "rb") as file:
            files = index_archive(file, passed)
            reader = Reader(lambda name, most: files[name].read(file, most), lambda name: f"{path}:{name}")
            content = catalogue(files, reader, passed)
    for name in content.archives:
        passed.add(ARCHIVE, f"{path.name}:{name}")
    key = partial(_with_split, path, split)
    return Shard(
        path,
        [key(name) for name in content.pictures],
        [files[name] for name in content.pictures],
        content.labels,
        {key(folder): table for folder, table in content.annotations.items()},
    )


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # tarfile raises nearly every type there is on damaged headers
        # tarfile's own errors and the system's are for people, and Python's, such as a ValueError, are not.
        told = error if isinstance(error, (tarfile.TarError, OSError)) else "it is damaged"
        raise DataError(f"cannot read the shard {path}: {told}; copy or download it again") from error


def _splits_of(shards: Sequence[Path], root: Path) -> list[str | None]:
    """The split of each shard; none of any where some have one and the other split has no shard."""
    splits = [_split_of(shard, root) for shard in shards]
    named = set(splits) - {None}
    whole = None not in splits or (TRAIN in named and len(named) > 1)
    return splits if whole else [None] * len(splits)


def _split_of(shard: Path, root: Path) -> str | None:
    """The split that a shard's folder or name stands for."""
    folders = shard.relative_to(root).parts[:-1] if shard.is_relative_to(root) else ()
    named = next(filter(None, map(split_word, folders)), None)
    words = split_words(shard.name)
    if named is None and len(words) > 1:
        raise DataError(
            f"the name of the shard {shard} has the words {' and '.join(sorted(words))}; rename it, so that it is "
            "clear to which split its pictures belong"
        )
    return named or next(iter(words), None)


def _with_split(shard: Path, split: str | None, name: str) -> str:
    """A picture's key: its name in the shard, below the split of the shard."""
    inside = split_word(name.split("/", 1)[0]) if split and "/" in name else None
    if split is None or inside == split:
        return name
    if inside is not None:
        raise DataError(f"{shard} is named as a shard of {split} and holds {name}; rename one of the two")
    return f"{split}/{name}"
