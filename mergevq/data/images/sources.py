"""A path to pictures: folders, tar shards and built-in sets behind one small protocol.

Opening one says in the log how many pictures there are, of which classes, and what was passed over.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from PIL import Image

from mergevq.data.images.builtin import builtin_census, open_builtin
from mergevq.data.images.folder import FolderSource, list_folder
from mergevq.data.images.tar import (
    TarSource,
    all_annotations,
    all_keys,
    all_numbers,
    find_shards,
    index_shards,
)
from mergevq.data.listing.catalogue import Catalogue
from mergevq.data.listing.names import is_archive, picture_extensions
from mergevq.data.listing.overview import say_overview
from mergevq.data.listing.passed_over import ARCHIVE, PassedOver
from mergevq.data.listing.splits import Selection, Split, select
from mergevq.errors import DataError, UsageError, shortened
from mergevq.storage.files import expanded

BUILTIN = "builtin:"


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
        split: which part. Folders such as `train` and `val` are the parts, see `mergevq.data.listing.layout`.
        holdout: share of the pictures held out for validation where there are no such folders.

    Raises:
        UsageError: the path does not exist, or is no folder and no tar file.
        DataError: there are no pictures, it is unclear which are meant, or a shard is unreadable.
    """
    if path.startswith(BUILTIN):
        source = open_builtin(path[len(BUILTIN) :], split)
        say_overview(path, builtin_census(path[len(BUILTIN) :], split), source.classes)
        return source
    root = expanded(path)
    if os.path.isdir(root):  # which a pattern too long for a name may be asked
        return _open_folder(root, split, holdout)
    if is_archive(path):
        shards = find_shards(str(root)) if os.path.exists(root) or set(path) & set("{*?[") else []
        if shards:
            common = os.path.commonpath([shard.parent for shard in shards])
            return _open_shards(path, shards, Path(common), split, holdout)
    if not os.path.exists(root):
        raise UsageError(
            f"{shortened(path)} does not exist; give a folder of pictures, a .tar file or {BUILTIN}photos"
        )
    kind = "a single file" if os.path.isfile(root) else "a FIFO, a socket or a device"
    raise UsageError(f"{shortened(path)} is {kind}; give a folder of pictures or a .tar file")


def _open_folder(root: Path, split: Split, holdout: float) -> ImageSource:
    passed = PassedOver()
    content = list_folder(root, passed)
    if not content.pictures:
        if content.archives:
            shards = [root / name for name in content.archives]
            return _open_shards(str(root), shards, root, split, holdout, passed)
        raise DataError(
            f"{root} holds no pictures: looked for .jpg .png .webp and {len(picture_extensions()) - 3} more "
            f"extensions that Pillow reads, and for .tar, found {passed or 'no files'}"
        )
    selection = select(
        content.pictures,
        split,
        holdout,
        numbers=content.labels.numbers,
        annotations=content.annotations,
        passed=passed,
    )
    passed.count_bare_folders(content.pictures)
    _check_archives(root, content, selection, passed)
    _check_labels(selection, content.labels.refusal)
    say_overview(str(root), selection.census, selection.classes, passed)
    return FolderSource(root, content.pictures, selection)


def _open_shards(
    path: str, paths: list[Path], root: Path, split: Split, holdout: float, passed: PassedOver | None = None
) -> ImageSource:
    passed = passed or PassedOver()
    shards = index_shards(paths, root, passed)
    keys = all_keys(shards)
    if not keys:
        raise DataError(f"no pictures in {_listed(paths)}: found {passed or 'no files'}")
    selection = select(
        keys,
        split,
        holdout,
        numbers=all_numbers(shards),
        annotations=all_annotations(shards),
        passed=passed,
    )
    _check_labels(selection, next(filter(None, (shard.labels.refusal for shard in shards)), None))
    say_overview(path, selection.census, selection.classes, passed)
    return TarSource(shards, selection)


def _check_archives(root: Path, content: Catalogue, selection: Selection, passed: PassedOver) -> None:
    """Tar files beside pictures: leftovers where they are compressed or the pictures lie in splits, else unclear."""
    shards = [name for name in content.archives if name.lower().endswith(".tar")]
    if shards and not selection.census.named:
        number = len(shards)
        raise DataError(
            f"{root} holds {len(content.pictures)} pictures (first {content.pictures[0]}) and {number} tar "
            f"file{'' if number == 1 else 's'} (first {shards[0]}); give a folder with one of the two, "
            f"or the pattern '{root}/*.tar'"
        )
    for name in content.archives:
        passed.add(ARCHIVE, name)


def _check_labels(selection: Selection, refusal: str | None) -> None:
    """Labels that are no numbers matter where the folders do not tell classes apart."""
    if refusal is not None and len(selection.classes) == 1:
        raise DataError(refusal)


def _listed(shards: list[Path]) -> str:
    names = [str(shard) for shard in shards[:3]]
    return ", ".join(names) + (f" and {len(shards) - 3} more" if len(shards) > 3 else "")
