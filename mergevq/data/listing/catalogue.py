"""The files of a folder or of a shard, sorted into pictures, their labels, and what is passed over."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from mergevq.data.listing.labels import SUFFIXES, Labels, Reader, find_labels
from mergevq.data.listing.names import (
    ANNOTATIONS,
    extension,
    is_archive,
    parts_of_samples,
    picture_extensions,
)
from mergevq.data.listing.passed_over import PART, PassedOver
from mergevq.errors import DataError

_LARGEST = 2**26
"""Bytes of annotations that are read; Tiny ImageNet's have 400 KB."""


class Catalogue(NamedTuple):
    """What a folder or a shard holds.

    Attributes:
        pictures: their names, in the order of the files.
        labels: what files beside them say.
        annotations: by folder, the class of each file name in it.
        archives: tar files among the files.
    """

    pictures: list[str]
    labels: Labels
    annotations: dict[str, dict[str, str]]
    archives: list[str]


def catalogue(names: Iterable[str], reader: Reader, passed: PassedOver) -> Catalogue:
    """Sorts files by their names.

    Args:
        names: of files that are not hidden.
        reader: reads those that may hold labels.
        passed: where the others are counted.

    Raises:
        DataError: labels are missing, shared or damaged.
    """
    pictures, beside, annotated, archives = [], [], [], []
    suffixes = picture_extensions()
    for name in names:
        suffix = extension(name)
        if suffix in suffixes:
            pictures.append(name)
        elif suffix in SUFFIXES:
            beside.append(name)
        elif name.rpartition("/")[2] == ANNOTATIONS:
            annotated.append(name)
        elif is_archive(name):
            archives.append(name)
        else:
            passed.add_other(name)
    for part, whole in (parts := parts_of_samples(pictures)).items():
        passed.add(PART, f"{part} beside {whole}")
    if parts:
        pictures = [name for name in pictures if name not in parts]
    labels = find_labels(pictures, beside, reader, passed)
    return Catalogue(
        pictures, labels, {_folder(name): _annotations(name, reader) for name in annotated}, archives
    )


def _folder(name: str) -> str:
    folder, slash, _ = name.rpartition("/")
    return folder + slash


def _annotations(name: str, reader: Reader) -> dict[str, str]:
    """File name to class."""
    lines = [line.split("\t") for line in reader.read(name, _LARGEST).decode("utf-8", "replace").splitlines()]
    short = next((number for number, line in enumerate(lines, 1) if len(line) < 2), None)
    if short is not None:
        raise DataError(f"{reader.where(name)}, line {short}, is not a file name, a tab and a class")
    return {file: kind for file, kind, *_ in lines}
