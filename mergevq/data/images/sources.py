"""A path to pictures: folders, tar shards and built-in sets behind one small protocol."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Protocol

from PIL import Image

from mergevq.data.images.builtin import open_builtin
from mergevq.data.images.folder import EXTENSIONS, FolderSource, is_picture, list_files
from mergevq.data.images.splits import Split, select
from mergevq.data.images.tar import TarSource, find_shards
from mergevq.errors import DataError, UsageError
from mergevq.files import expanded

BUILTIN = "builtin:"
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


class ImageSource(Protocol):
    """The pictures of one split, by number. Sources travel to worker processes."""

    classes: list[str]
    """Names of the classes, the same for both splits."""
    max_scale: float
    """How far random training crops should zoom in, see `random_crop_flip`."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """What to call the picture in a message: its path."""

    def label(self, index: int) -> int:
        """The class of a picture, a position in `classes`."""

    def open(self, index: int) -> Image.Image:
        """The picture as stored, decoded or not; raises whatever Pillow does on a broken one."""


def open_source(path: str, split: Split, holdout: float = 0.05) -> ImageSource:
    """The pictures that a path names.

    Args:
        path: a folder of pictures (ImageNet's layout, class folders, or flat), a tar file, a folder of
            tar files, a pattern of them (`shard-{000..012}.tar`, `*.tar`), or `builtin:NAME`.
        split: which part. Folders `train` and `val` (or `valid`, `validation`, `test`) are the parts.
        holdout: share of the pictures held out for validation where there are no such folders.

    Raises:
        UsageError: the path does not exist, or is no folder and no tar file.
        DataError: there are no pictures, or a shard is unreadable.
    """
    if path.startswith(BUILTIN):
        return open_builtin(path[len(BUILTIN) :], split)
    root = expanded(path)
    if os.path.isdir(root):  # which a pattern too long for a name may be asked
        return _open_folder(root, split, holdout)
    if path.endswith(ARCHIVES):
        shards = find_shards(str(root)) if os.path.exists(root) or set(path) & set("{*?[") else []
        if shards:
            common = os.path.commonpath([shard.parent for shard in shards])
            return TarSource(shards, Path(common), split, holdout)
    if not os.path.exists(root):
        raise UsageError(f"{path} does not exist; give a folder of pictures, a .tar file or {BUILTIN}photos")
    raise UsageError(f"{path} is a single file; give a folder of pictures or a .tar file")


def _open_folder(root: Path, split: Split, holdout: float) -> ImageSource:
    files = list_files(root)
    keys = [file for file in files if is_picture(file)]
    if keys:
        return FolderSource(root, keys, select(keys, split, holdout))
    shards = [root / file for file in files if file.endswith(ARCHIVES)]
    if shards:
        return TarSource(shards, root, split, holdout)
    raise DataError(
        f"{root} holds no pictures: looked for {' '.join(EXTENSIONS)} and .tar, {_inventory(files)}"
    )


def _inventory(files: list[str]) -> str:
    if not files:
        return "found no files"
    counts = Counter(Path(file).suffix or "no extension" for file in files).most_common(3)
    return "found " + ", ".join(f"{count} x {suffix}" for suffix, count in counts)
