"""Which of a data set's pictures belong to training and which to validation, and their classes.

Works on keys: slash-separated paths below the data set's root, the same for folders and tar shards.
`train/` beside `val/` (or `valid/`, `validation/`, `test/`) are the splits. Otherwise a fraction is
held out by a hash of the key, so the choice survives added files, renamed roots and reordering.
Below that, the first folder of a key is its class.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np

logger = logging.getLogger(__name__)

Split = Literal["train", "val", "all"]
"""Training, validation, or both together."""

TRAIN = "train"
VALIDATION = ("val", "valid", "validation", "test")
FLAT = "."
"""The class of pictures that lie in no folder."""


class Selection(NamedTuple):
    """The pictures of one split.

    Attributes:
        rows: (N,) int64, positions in the keys that were split, sorted by key.
        labels: (N,) int64, positions in `classes`.
        classes: class names, sorted, `FLAT` last; the same for both splits.
    """

    rows: np.ndarray
    labels: np.ndarray
    classes: list[str]


class Listing(Protocol):
    """The names, labels and classes of a split, whatever holds the pictures."""

    classes: list[str]

    def __len__(self) -> int: ...

    def name(self, index: int) -> str: ...

    def label(self, index: int) -> int: ...


def listing_digest(split: Listing) -> str:
    """A hash of the names, labels and classes of a split; no picture is read.

    It is the same wherever the data set lies, and another one where a picture or a class came or went.
    """
    digest = hashlib.sha256(content_digest(split).encode())
    for name in split.classes:
        digest.update(os.fsencode(f"{name}\0"))
    return digest.hexdigest()


def content_digest(split: Listing) -> str:
    """A hash of the pictures' names, without the folders around them all, and of their labels."""
    names = [split.name(index) for index in range(len(split))]
    around = len(os.path.commonpath(names)) if len(names) > 1 else 0
    digest = hashlib.sha256()
    for index, name in enumerate(names):
        digest.update(os.fsencode(f"{name[around:]}\0{split.label(index)}\n"))
    return digest.hexdigest()


def select(keys: Sequence[str], split: Split, holdout: float) -> Selection:
    """The pictures of a split.

    Args:
        keys: at least one.
        split: which part.
        holdout: share of the pictures kept for validation where the keys name no splits, in (0, 1);
            at least one picture stands on each side. A single picture is in both.
    """
    order = sorted(range(len(keys)), key=keys.__getitem__)
    paths = _below_root([keys[row].split("/") for row in order])
    folders = {path[0] for path in paths if len(path) > 1}
    validation = next((name for name in VALIDATION if name in folders), None)
    if TRAIN in folders and validation is not None:
        wanted = {"train": {TRAIN}, "val": {validation}, "all": {TRAIN, validation}}[split]
        used = [len(path) > 1 and path[0] in (TRAIN, validation) for path in paths]
        chosen = [len(path) > 1 and path[0] in wanted for path in paths]
        depth = 1
    else:
        used = [True] * len(paths)
        chosen = _hold_out(["/".join(path) for path in paths], split, holdout)
        depth = int(len(folders) == 1 and folders <= {TRAIN, *VALIDATION})
    names = [path[depth] if len(path) > depth + 1 else FLAT for path in paths]
    found = {name for name, use in zip(names, used, strict=True) if use}
    # Last, so that an unsorted validation folder does not shift the labels of training.
    classes = sorted(found, key=lambda name: (name == FLAT, name))
    number = {name: label for label, name in enumerate(classes)}
    picked = [place for place, choose in enumerate(chosen) if choose]
    return Selection(
        np.array([order[place] for place in picked], np.int64),
        np.array([number[names[place]] for place in picked], np.int64),
        classes,
    )


def _below_root(paths: list[list[str]]) -> list[list[str]]:
    """The paths without a wrapping folder that all share, such as `imagenet/` around the splits."""
    while all(len(path) > 2 for path in paths) and len({path[0] for path in paths}) == 1:
        if paths[0][0] in (TRAIN, *VALIDATION):
            break
        paths = [path[1:] for path in paths]
    return paths


def _hold_out(keys: list[str], split: Split, holdout: float) -> list[bool]:
    if split == "all":
        return [True] * len(keys)
    if len(keys) == 1:
        logger.warning("the data set has one picture; it is used for training and for validation")
        return [True]
    hashes = np.array([_hash(key) for key in keys])
    held = hashes < holdout
    if not held.any():
        held[hashes.argmin()] = True
    if held.all():
        held[hashes.argmax()] = False
    return [bool(flag) == (split == "val") for flag in held]


def _hash(key: str) -> float:
    """A number in [0, 1) that depends on the key alone."""
    digest = hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64
