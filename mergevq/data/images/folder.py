"""Pictures in a folder: ImageNet's layout, class folders, or flat."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from mergevq.data.images.formats.opening import open_picture
from mergevq.data.images.splits import Selection
from mergevq.errors import DataError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


class FolderSource:
    """The pictures of one split of a folder.

    Args:
        root: the folder.
        keys: every picture below it, as `list_files` names them.
        selection: which of them, and their labels.
    """

    max_scale = 1.0

    def __init__(self, root: Path, keys: list[str], selection: Selection) -> None:
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


def list_files(root: Path) -> list[str]:
    """Every file below a folder as a slash-separated relative path, sorted; hidden ones are left out.

    Raises:
        DataError: a folder cannot be listed.
    """
    try:
        return sorted(_walk(str(root), "", frozenset()))
    except OSError as error:
        raise DataError(f"cannot list the folder {error.filename}: {error.strerror}") from error


def is_picture(name: str) -> bool:
    """Whether a file name ends like a picture's."""
    return name.lower().endswith(EXTENSIONS)


def _walk(folder: str, prefix: str, above: frozenset[str]) -> Iterator[str]:
    """Keys of the files below `folder`; symbolic links are followed, but never in a circle."""
    real = os.path.realpath(folder)
    if real in above:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _walk(entry.path, f"{prefix}{entry.name}/", above | {real})
            else:
                yield prefix + entry.name
