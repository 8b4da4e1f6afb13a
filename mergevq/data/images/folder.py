"""Pictures in a folder: ImageNet's layout, class folders, or flat."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mergevq.data.images.formats.opening import open_picture
from mergevq.data.listing.catalogue import Catalogue, catalogue
from mergevq.data.listing.labels import Reader
from mergevq.data.listing.names import is_hidden
from mergevq.data.listing.passed_over import CIRCLE, HIDDEN, LINK, SPECIAL, PassedOver
from mergevq.data.listing.splits import Selection
from mergevq.errors import DataError


class FolderSource:
    """The pictures of one split of a folder.

    Args:
        root: the folder.
        keys: every picture below it, by its path in it.
        selection: which of them, and their labels.
    """

    max_scale = 1.0

    def __init__(self, root: Path, keys: Sequence[str], selection: Selection) -> None:
        self.root = root
        self.classes = selection.classes
        self._labels = selection.labels
        # One array of bytes instead of a list: forked workers then share its memory.
        self._keys = np.array([os.fsencode(keys[row]) for row in selection.rows])

    def __len__(self) -> int:
        return len(self._keys)

    def name(self, index: int) -> str:
        """The path of a picture."""
        return str(self.root / os.fsdecode(self._keys[index]))

    def label(self, index: int) -> int:
        """The class of a picture, a position in `classes`."""
        return int(self._labels[index])

    def open(self, index: int) -> Image.Image:
        """The picture, opened but not decoded; no file stays open."""
        with open(self.name(index), "rb") as file:
            return open_picture(file.read())


def list_folder(root: Path, passed: PassedOver) -> Catalogue:
    """What a folder holds, at any depth; one pass, and only files that may hold labels are opened.

    Args:
        root: the folder.
        passed: where what is left out is counted.

    Raises:
        DataError: a folder cannot be listed, or labels are missing, shared or damaged.
    """

    def read(name: str, most: int) -> bytes:
        with open(root / name, "rb") as file:
            return file.read(most)

    try:
        names = sorted(_walk(str(root), "", frozenset(), passed))
        return catalogue(names, Reader(read, lambda name: str(root / name)), passed)
    except OSError as error:
        raise DataError(f"cannot read {error.filename}: {error.strerror}") from error


def _walk(folder: str, prefix: str, above: frozenset[str], passed: PassedOver) -> Iterator[str]:
    """Paths of the files below `folder`; symbolic links are followed, but never in a circle."""
    real = os.path.realpath(folder)
    if real in above:
        passed.add(CIRCLE, prefix.rstrip("/"))
        return
    empty = True
    with os.scandir(folder) as entries:
        for entry in entries:
            empty = False
            if is_hidden(entry.name):
                passed.add(HIDDEN, prefix + entry.name)
            elif _leads_nowhere(entry):
                passed.add(LINK, prefix + entry.name)
            elif entry.is_file():
                yield prefix + entry.name
            elif entry.is_dir():
                yield from _walk(entry.path, f"{prefix}{entry.name}/", above | {real}, passed)
            else:
                passed.add(SPECIAL, prefix + entry.name)
    if empty:
        passed.add_folder(prefix.rstrip("/"))


def _leads_nowhere(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a link without a file or a folder at its end; asks the disk about links only."""
    return entry.is_symlink() and not os.path.exists(entry.path)
