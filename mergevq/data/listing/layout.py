"""Which folders are the splits, and which the classes: works on the folders of a data set alone.

A folder of training pictures beside one of validation pictures are the splits, whatever their case and with a
year or another number behind them: `train2017/` and `val2017/`. What lies beside the two is passed over.
Whatever could be meant otherwise is refused: two training folders, or splits inside several folders.
Below that, the first folder of a picture is its class.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Literal, NamedTuple

from mergevq.data.listing.names import normal
from mergevq.errors import DataError

Part = Literal["train", "val"]

TRAIN = "train"
VALIDATION = ("val", "validation", "valid", "dev", "eval", "test")
"""In the order in which they are taken where there are several."""
FLAT = "."
"""The class of pictures that lie in no folder."""

_SYNONYMS = {"training": TRAIN, "testing": "test", "evaluation": "eval"}
_WORDS = "|".join((TRAIN, *VALIDATION, *_SYNONYMS))
_WHOLE = re.compile(rf"({_WORDS})(?:[-_. ]?\d+)?", re.IGNORECASE)
_WITHIN = re.compile(rf"(?:^|[-_. ])({_WORDS})(?=[-_. \d]|$)", re.IGNORECASE)
_WRAPPERS = frozenset(("images", "image", "imgs", "img", "data"))
"""Folders that many data sets have between a split and its classes."""


class Place(NamedTuple):
    """Where the pictures of a folder belong.

    Attributes:
        part: the split; None where the pictures are shared out, or are outside the splits.
        name: the class.
    """

    part: Part | None
    name: str


class Layout(NamedTuple):
    """How the folders of a data set are to be read.

    Attributes:
        root: what comes before the splits or the classes: nothing, or folders with a slash at the end.
        splits: the names of the folders for training and validation; None where there are none.
        places: by folder.
    """

    root: str
    splits: tuple[str, str] | None
    places: dict[str, Place]


def read_layout(folders: Collection[str]) -> Layout:
    """The layout of a data set.

    Args:
        folders: every folder that directly holds a picture, as a slash-separated path; "" is the data set's own.

    Raises:
        DataError: it is unclear which folders are the splits.
    """
    root, splits = _find_splits(folders)
    if splits is None:
        return _without_splits(folders)
    places = dict.fromkeys(folders, Place(None, FLAT))
    parts: tuple[tuple[Part, str], ...] = (("train", splits[0]), ("val", splits[1]))
    for part, name in parts:
        top = f"{root}{name}/"
        start = _unwrapped(folders, top, partial(_wraps, split=name))
        places |= {
            folder: Place(part, _class(folder, start)) for folder in folders if f"{folder}/".startswith(top)
        }
    return Layout(root, splits, places)


def _without_splits(folders: Collection[str]) -> Layout:
    root = _class_root(folders)
    children = _children(folders, root)
    alone = len(children) == 1 and split_word(children[0])
    start = f"{root}{children[0]}/" if alone else root
    return Layout(root, None, {folder: Place(None, _class(folder, start)) for folder in folders})


def _class_root(folders: Collection[str]) -> str:
    """The folders around all classes: down to where there are several, whatever else lies on the way.

    Where there never are, a folder that holds a picture itself is a class, whatever is below it.
    """
    path = [""]
    while len(children := _children(folders, path[-1])) == 1 and split_word(children[0]) is None:
        path.append(f"{path[-1]}{children[0]}/")
    if children:
        return path[-1]
    full = (place for place, root in enumerate(path) if root.rstrip("/") in folders)
    return path[max(next(full) - 1, 0)]


def _wraps(child: str, split: str) -> bool:
    """Whether a folder in one of a split only lies around the classes, as `train/images/`, `train/train/`."""
    word = split_word(child)
    return child.lower() in _WRAPPERS or (
        word is not None and word in {split_word(split), *split_words(split)}
    )


def split_word(name: str) -> str | None:
    """The split that a folder's name as a whole stands for: "train", or one of VALIDATION."""
    match = _WHOLE.fullmatch(name)
    return _canonical(match[1]) if match else None


def split_words(name: str) -> set[str]:
    """The splits that words in a name stand for, as in `imagenet-train-000001.tar`."""
    return {_canonical(word) for word in _WITHIN.findall(name)}


def _canonical(word: str) -> str:
    word = word.lower()
    return _SYNONYMS.get(word, word)


def _find_splits(folders: Collection[str]) -> tuple[str, tuple[str, str] | None]:
    """What comes before the folders of the splits, and their names; strays beside the way do not count."""
    root = ""
    while True:
        children = _children(folders, root)
        splits = _splits_among(children, root)
        if splits is not None:
            return root, splits
        if len(children) != 1 or split_word(children[0]):
            break
        root += f"{children[0]}/"
    _refuse_splits_inside(folders, root)
    return root, None


def _refuse_splits_inside(folders: Collection[str], root: str) -> None:
    """Several folders, and splits in one of them: classes with splits, or pictures beside their masks."""
    inside: dict[str, set[str]] = {}
    for folder in folders:
        child, _, below = folder[len(root) :].partition("/")
        inside.setdefault(child, set()).add(below.split("/", 1)[0])
    for child, names in sorted(inside.items()):
        splits = _splits_among(names - {""}, f"{root}{child}/") if len(names) > 1 else None
        if splits is not None:
            raise DataError(
                f"the folder {root}{child} holds {splits[0]} and {splits[1]}, and other folders are beside it; "
                "give one of these folders, or put the splits at the top and the classes inside them"
            )


def _splits_among(names: Collection[str], root: str) -> tuple[str, str] | None:
    """The folders for training and validation among some that lie side by side."""
    named = [(name, split_word(name)) for name in names]
    words = [(name, split_words(name)) for name in names]
    splits = _chosen(named, root)
    if splits is None and all(len(several) == 1 for _, several in words):
        splits = _chosen([(name, several.pop()) for name, several in words], root)
    return splits


def _chosen(named: Iterable[tuple[str, str | None]], root: str) -> tuple[str, str] | None:
    found: dict[str, list[str]] = {}
    for name, word in named:
        if word is not None:
            found.setdefault(word, []).append(name)
    validation = next((word for word in VALIDATION if word in found), None)
    if TRAIN not in found or validation is None:
        return None
    return _only(found[TRAIN], root), _only(found[validation], root)


def _only(names: list[str], root: str) -> str:
    if len(names) > 1:
        raise DataError(
            f"{' and '.join(f'{root}{name}' for name in sorted(names))} have names of the same split; "
            "give a folder with one of them, or with links to those that are meant"
        )
    return names[0]


def _unwrapped(folders: Collection[str], root: str, wraps: Callable[[str], bool]) -> str:
    """`root` and the folders below it that lie around everything there."""
    while len(children := _children(folders, root)) == 1 and wraps(children[0]):
        root += f"{children[0]}/"
    return root


def _children(folders: Collection[str], root: str) -> list[str]:
    """The folders directly below `root` that hold pictures, at any depth."""
    start = len(root)
    return sorted(
        {folder[start:].split("/", 1)[0] for folder in folders if folder.startswith(root) and folder[start:]}
    )


def _class(folder: str, root: str) -> str:
    """The first folder below `root`."""
    below = folder[len(root) :] if folder.startswith(root) else ""  # else it is a folder around it
    return normal(below.split("/", 1)[0]) or FLAT
