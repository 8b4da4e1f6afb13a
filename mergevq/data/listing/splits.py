"""Which of a data set's pictures belong to training and which to validation, and their classes.

Works on keys: slash-separated paths below the data set's root, the same for folders and tar shards.
Where no folders are the splits (see `mergevq.data.listing.layout`), a fraction is held out by a hash of
the key, so the choice survives added files, renamed roots and reordering.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from itertools import compress
from typing import Literal, NamedTuple, Protocol

import numpy as np

from mergevq.data.listing.layout import FLAT, Layout, read_layout
from mergevq.data.listing.names import ANNOTATIONS, normal
from mergevq.data.listing.passed_over import OUTSIDE, PassedOver
from mergevq.errors import DataError

logger = logging.getLogger(__name__)

Split = Literal["train", "val", "all"]
"""Training, validation, or both together."""

Annotations = Mapping[str, Mapping[str, str]]
"""Of a folder, with a slash at its end, the class of each file name in it: what Tiny ImageNet's validation has."""


class Census(NamedTuple):
    """How many pictures a data set has, whichever of them are wanted.

    Attributes:
        training: for training; all of them where nothing is held out.
        validation: for validation; None where nothing is held out.
        how: what makes the two parts, in words.
        named: whether folders or shards are the parts.
        remarks: what is odd about the classes, in words.
    """

    training: int
    validation: int | None
    how: str
    named: bool
    remarks: Sequence[str] = ()


class Selection(NamedTuple):
    """The pictures of one split.

    Attributes:
        rows: (N,) int64, positions in the keys that were split, sorted by key.
        labels: (N,) int64, positions in `classes`.
        classes: class names, the same for both splits: those of training, sorted, then those that only
            validation has, then `FLAT`.
        census: how many pictures there are of either part.
    """

    rows: np.ndarray
    labels: np.ndarray
    classes: list[str]
    census: Census


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


def select(
    keys: Sequence[str],
    split: Split,
    holdout: float,
    *,
    numbers: Sequence[int] | None = None,
    annotations: Annotations | None = None,
    passed: PassedOver | None = None,
) -> Selection:
    """The pictures of a split.

    Args:
        keys: at least one.
        split: which part.
        holdout: share of the pictures kept for validation where the keys name no splits, in (0, 1);
            at least one picture stands on each side. A single picture is in both.
        numbers: the class number of each picture, where files beside them hold it; else folders are the classes.
        annotations: classes of validation pictures that lie in no class folders.
        passed: where the pictures outside the splits are counted.

    Raises:
        DataError: it is unclear which folders are the splits, or annotations leave a picture out.
    """
    order = np.array(sorted(range(len(keys)), key=keys.__getitem__), np.int64)
    ordered = [keys[row] for row in order]
    folders: dict[str, int] = {}
    ids = np.fromiter(
        (folders.setdefault(key.rpartition("/")[0], len(folders)) for key in ordered), np.int64, len(keys)
    )
    layout = read_layout(folders)
    parts = _parts(layout, ids, ordered, split, holdout)
    if passed is not None and parts.named:
        _count_outside(layout, ids, passed)
    if numbers is None:
        labels, classes = _classes(_names(layout, ids, ordered, annotations or {}), parts)
    else:
        labels = np.array(numbers, np.int64)[order]
        classes = [str(number) for number in range(1 + max(numbers))]
    chosen = {"train": parts.train, "val": parts.val, "all": parts.train | parts.val}[split]
    return Selection(
        rows=order[chosen],
        labels=labels[chosen],
        classes=classes,
        census=_census(labels, classes, parts, split),
    )


class _Parts(NamedTuple):
    """Which pictures, in the order of their keys, are for training and for validation: (N,) bool each."""

    train: np.ndarray
    val: np.ndarray
    how: str
    named: bool


def _parts(layout: Layout, ids: np.ndarray, keys: list[str], split: Split, holdout: float) -> _Parts:
    """The parts that folders name, else a share held out; each is everything where nothing else is wanted."""
    if layout.splits is not None:
        part = np.array([place.part or "" for place in layout.places.values()])[ids]
        return _Parts(part == "train", part == "val", ", ".join(layout.splits), named=True)
    everything = np.ones(len(keys), bool)
    if split == "all":
        return _Parts(everything, everything, "", named=False)
    if len(keys) == 1:
        logger.warning("the data set has one picture; it is used for training and for validation")
        return _Parts(everything, everything, "the same one", named=False)
    held = _held_out([key[len(layout.root) :] for key in keys], holdout)
    return _Parts(~held, held, f"{100 * holdout:.3g}% held out", named=False)


def _names(layout: Layout, ids: np.ndarray, keys: list[str], annotations: Annotations) -> list[str]:
    """The class of each picture: its folder's, or what annotations say of it."""
    by_folder = [place.name for place in layout.places.values()]
    names = [by_folder[number] for number in ids.tolist()]
    for folder, table in annotations.items():
        for row, key in enumerate(keys):
            if key.startswith(folder):
                name = table.get(key.rpartition("/")[2])
                if name is None:
                    raise DataError(f"{key} is not in {folder}{ANNOTATIONS}, which holds the classes there")
                names[row] = normal(name)
    return names


def _classes(names: list[str], parts: _Parts) -> tuple[np.ndarray, list[str]]:
    """(N,) labels, and the classes.

    A single folder in validation that is no class of training, such as `val/images/`, is no class at all.
    """
    training, validation = (set(compress(names, part.tolist())) - {FLAT} for part in (parts.train, parts.val))
    if not parts.named:  # else the classes would depend on what is held out
        training |= validation
    elif len(validation) == 1 and training.isdisjoint(validation):
        names = [FLAT if name in validation else name for name in names]
        validation = set()
    # Behind those of training, whose labels then do not depend on what validation holds.
    classes = sorted(training) + sorted(validation - training)
    if FLAT in compress(names, (parts.train | parts.val).tolist()):
        classes.append(FLAT)
    number = {name: label for label, name in enumerate(classes)}
    return np.array([number.get(name, 0) for name in names], np.int64), classes


def _census(labels: np.ndarray, classes: list[str], parts: _Parts, split: Split) -> Census:
    whole = split == "all" and not parts.named
    return Census(
        training=int(parts.train.sum()),
        validation=None if whole else int(parts.val.sum()),
        how=parts.how,
        named=parts.named,
        remarks=_remarks(labels, classes, parts),
    )


def _remarks(labels: np.ndarray, classes: list[str], parts: _Parts) -> list[str]:
    """Pictures without a class where others have one, and classes that training lacks."""
    used = np.bincount(labels[parts.train | parts.val], minlength=len(classes))
    remarks = []
    if FLAT in classes and len(classes) > 1:
        remarks.append(f"{used[-1]} of the pictures without a class")
    training, validation = (set(labels[part].tolist()) for part in (parts.train, parts.val))
    only = [classes[label] for label in sorted(validation - training) if classes[label] != FLAT]
    if only and parts.named:
        remarks.append(f"{len(only)} in validation alone ({few(only)})")
    return remarks


def few(names: Sequence[str]) -> str:
    """A list in words: all of three, else the first and the last."""
    return ", ".join(names) if len(names) < 4 else f"{names[0]} ... {names[-1]}"


def _count_outside(layout: Layout, ids: np.ndarray, passed: PassedOver) -> None:
    counts = np.bincount(ids)
    outside = [number for number, place in enumerate(layout.places.values()) if place.part is None]
    if outside:
        folders = list(layout.places)
        where = sorted({folders[number][len(layout.root) :].split("/")[0] for number in outside} - {""})
        passed.add(OUTSIDE, ", ".join(where[:3]) or "beside their folders", int(counts[outside].sum()))


def _held_out(keys: list[str], holdout: float) -> np.ndarray:
    """Which keys are for validation, (N,) bool; at least one, and not all."""
    hashes = np.array([_hash(key) for key in keys])
    held = hashes < holdout
    if not held.any():
        held[hashes.argmin()] = True
    if held.all():
        held[hashes.argmax()] = False
    return held


def _hash(key: str) -> float:
    """A number in [0, 1) that depends on the key alone."""
    digest = hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64
