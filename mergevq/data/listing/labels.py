"""Labels in files beside the pictures: a class number in `.cls`, or in `.json` under "cls" or "label".

A set has them or not: where one picture has a label, every one needs its own, and no two share one. `.json`
is looked at only where there is no `.cls`. What it says is no label unless it is a number, as programs that
annotate or download pictures write their own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from mergevq.data.listing.names import extension, sample, stem
from mergevq.data.listing.passed_over import JSON, LABEL, PassedOver
from mergevq.errors import DataError

SUFFIXES = (".cls", ".json")
_KEYS = ("cls", "label")
_DIGITS = 6
_LARGEST = 2**20
"""Bytes of a file that is looked at for a label; the descriptions of whole data sets are larger."""


class Reader(NamedTuple):
    """The small files beside the pictures."""

    read: Callable[[str, int], bytes]
    """The first bytes of a file, by its name, at most so many."""
    where: Callable[[str], str]
    """What to call a file in a message."""


class Labels(NamedTuple):
    """What the files beside the pictures say.

    Attributes:
        numbers: the class number of each picture; None where no file beside them holds any.
        refusal: why the first label that is not a number cannot be one; the folders must then be the classes.
    """

    numbers: list[int] | None
    refusal: str | None = None


def find_labels(pictures: Sequence[str], beside: Iterable[str], reader: Reader, passed: PassedOver) -> Labels:
    """The labels of some pictures.

    Args:
        pictures: their names.
        beside: the names of the files that may hold labels.
        reader: reads them.
        passed: where labels that are not used are counted.

    Raises:
        DataError: a picture has no label and others have one, two share one, or a file holds no class number.
    """
    files = _by_stem(beside, reader)
    numbered = [_partner(picture, files[".cls"]) for picture in pictures]
    if files[".json"]:
        described = [_partner(picture, files[".json"]) for picture in pictures]
    else:
        described = [None] * len(pictures)
    partners = [first or second for first, second in zip(numbered, described, strict=True)]
    values = [None if partner is None else _value(partner, reader) for partner in partners]
    for name in sorted(set(files[".cls"].values()).difference(numbered)):
        passed.add(LABEL, name)
    if not any(numbered) and not any(isinstance(value, int) for value in values):
        for name in files[".json"].values():
            passed.add(JSON, name)
        return Labels(None, next((value for value in values if isinstance(value, str)), None))
    _check_own(pictures, partners, reader)
    return Labels([_number(*pair, reader) for pair in zip(pictures, values, strict=True)])


def unlabelled(name: str) -> DataError:
    """What to say of a picture without a label where others have one."""
    return DataError(
        f"{name} has no class number in a .cls or .json file and other pictures have one; "
        "give every picture its class number or none"
    )


def _by_stem(beside: Iterable[str], reader: Reader) -> dict[str, dict[str, str]]:
    """The name of each file by its extension and its stem."""
    files: dict[str, dict[str, str]] = {suffix: {} for suffix in SUFFIXES}
    for name in beside:
        other = files[extension(name)].setdefault(stem(name), name)
        if other != name:
            raise DataError(
                f"{reader.where(name)} and {reader.where(other)} are labels of one picture; remove one"
            )
    return files


def _partner(picture: str, files: dict[str, str]) -> str | None:
    """The file that goes with a picture: of its stem, else of its WebDataset key."""
    return files.get(stem(picture)) or files.get(sample(picture)) if files else None


def _check_own(pictures: Sequence[str], partners: Sequence[str | None], reader: Reader) -> None:
    owners: dict[str, str] = {}
    for picture, partner in zip(pictures, partners, strict=True):
        if partner is not None and owners.setdefault(partner, picture) != picture:
            raise DataError(
                f"{reader.where(picture)} and {owners[partner]} share the label {partner}; "
                "give each picture a label of its own name, or leave one of the two out"
            )


def _number(picture: str, value: int | str | None, reader: Reader) -> int:
    """The class number of a picture of a labelled set."""
    if value is None:
        raise unlabelled(reader.where(picture))
    if isinstance(value, str):
        raise DataError(value)
    return value


def _value(name: str, reader: Reader) -> int | str | None:
    """The class number in a file; a sentence where it holds something else, None where it holds no label."""
    content = reader.read(name, _LARGEST)
    if extension(name) == ".cls":
        value: object = content.decode("ascii", "replace").strip()
    elif len(content) < _LARGEST and any(f'"{key}"'.encode() in content for key in _KEYS):
        try:
            described = json.loads(content)
        except (ValueError, RecursionError) as error:
            return f"{reader.where(name)} cannot be read as JSON: {error}"
        held = [described[key] for key in _KEYS if key in described] if isinstance(described, dict) else []
        if not held:
            return None
        value = held[0] if held[0] == held[-1] else held
    else:
        return None
    text = str(value).strip() if isinstance(value, (int, str)) and not isinstance(value, bool) else ""
    if text.isdecimal() and text.isascii() and len(text) <= _DIGITS:
        return int(text)
    return f"{reader.where(name)} holds {str(value)[:20]!r}; a class number below a million is wanted"
