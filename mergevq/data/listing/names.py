"""What a file is by its name: the one rule for folders, shards and single archives.

A picture's key is its path; its stem, by which it finds its label, is the path up to the last dot. WebDataset
cuts at the first dot of the file's name instead, so a label that is not found by the stem is looked for there:
`img.01.png` has `img.01.cls`, `x.rgb.png` has `x.cls`. What WebDataset takes for a further part of a sample,
such as `x.seg.png` beside `x.png`, is none of the data set's pictures. A number is no part: `x.1.png` is one.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import cache

from PIL import Image

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
ANNOTATIONS = "val_annotations.txt"
"""Tiny ImageNet's classes of the validation pictures, a line each: file name, tab, class, tab, box."""

_COMMON = frozenset(("AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "JXL", "PNG", "PPM", "TIFF", "WEBP"))
_FORMATS = _COMMON | {"DIB", "ICO", "PCX", "PSD", "QOI", "SGI", "TGA"}
"""Pillow's names of the formats that hold a picture; those that start programs or hold films are not among them."""
_CLUTTER = frozenset(
    ("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found")
)
"""What operating systems leave beside pictures, at times with thumbnails in it."""


@cache
def picture_extensions() -> frozenset[str]:
    """The extensions that the installed Pillow reads, in lower case and with their dot."""
    known = Image.registered_extensions()
    return frozenset(suffix for suffix, form in known.items() if form in _FORMATS and form in Image.OPEN)


def is_archive(name: str) -> bool:
    """Whether a file name ends like a tar file's, compressed or not."""
    return name.lower().endswith(ARCHIVES)


def is_hidden(part: str) -> bool:
    """Whether a file or a folder of this name is none of the user's."""
    return part.startswith(".") or part in _CLUTTER


def extension(name: str) -> str:
    """From the last dot of a path on, in lower case; empty where the file's name has none."""
    return name[_dot(name) :].lower()


def stem(name: str) -> str:
    """A path up to its last dot, by which pictures and labels are matched."""
    return normal(name[: _dot(name)])


def sample(name: str) -> str:
    """A path up to the first dot of the file's name: WebDataset's key."""
    folder, slash, file = name.rpartition("/")
    return normal(folder + slash + file.split(".", 1)[0])


def normal(text: str) -> str:
    """A name in Unicode's composed form, as one name may come in two from different systems."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def parts_of_samples(pictures: Iterable[str]) -> dict[str, str]:
    """Pictures that belong to another one of them, with that one: masks, depths and the like."""
    dotted = [name for name in pictures if name.count(".", name.rfind("/") + 1) > 1]
    if not dotted:
        return {}
    whole = {sample(name): name for name in pictures if name.count(".", name.rfind("/") + 1) == 1}
    return {name: whole[sample(name)] for name in dotted if sample(name) in whole and not _is_numbered(name)}


def _dot(name: str) -> int:
    """Where the last dot of a file's name stands, or its end where it has none."""
    dot = name.rfind(".")
    return dot if dot > name.rfind("/") else len(name)


def _is_numbered(name: str) -> bool:
    """Whether only digits and dots stand between the first and the last dot of a file's name."""
    return all(part.isdecimal() for part in name.rpartition("/")[2].split(".")[1:-1])
