"""What a data set holds and is not read: counted by reason, each with an example."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from mergevq.data.listing.names import extension


class Reason(NamedTuple):
    """Why something is passed over, in words for one and for several."""

    one: str
    many: str


OTHER = Reason("file that is no picture", "files that are no pictures")
HIDDEN = Reason("hidden file or folder", "hidden files or folders")
SPECIAL = Reason("FIFO, socket or device", "FIFOs, sockets or devices")
LINK = Reason("link that leads nowhere", "links that lead nowhere")
CIRCLE = Reason("link in a circle", "links in a circle")
PART = Reason("mask or other part of a sample", "masks or other parts of samples")
REPLACED = Reason(
    "file that a later one of its name replaces", "files that later ones of their names replace"
)
LABEL = Reason("label without a picture", "labels without a picture")
JSON = Reason(".json without a class number", ".json without a class number")
ARCHIVE = Reason("archive that is not looked into", "archives that are not looked into")
UNREADABLE = Reason("picture that could not be read", "pictures that could not be read")
BARE = Reason("folder without a picture", "folders without a picture")
OUTSIDE = Reason("picture outside the splits", "pictures outside the splits")


class PassedOver:
    """Counts by reason."""

    def __init__(self) -> None:
        self._counts: Counter[Reason] = Counter()
        self._examples: dict[Reason, str] = {}
        self._suffixes: Counter[str] = Counter()
        self._folders: set[str] = set()

    def add(self, reason: Reason, example: str, count: int = 1) -> None:
        """Counts some more; the first example of a reason is the one that is shown."""
        self._counts[reason] += count
        self._examples.setdefault(reason, example)

    def add_other(self, name: str) -> None:
        """Counts a file that is no picture by its extension."""
        self._counts[OTHER] += 1
        self._suffixes[extension(name) or "no extension"] += 1
        self._folders.add(name.rpartition("/")[0])

    def add_folder(self, folder: str) -> None:
        """Notes a folder in which there is nothing."""
        self._folders.add(folder)

    def count_bare_folders(self, pictures: Iterable[str]) -> None:
        """Counts the folders that have been met with other files, or with none, and hold no picture."""
        full = {name.rpartition("/")[0] for name in pictures}
        around = {folder[:end] for folder in full for end in range(len(folder)) if folder[end] == "/"}
        bare = self._folders - full - around - {""}
        for folder in sorted(bare):
            self.add(BARE, folder)

    @property
    def files(self) -> str:
        """The files that are no pictures, by extension."""
        most = sorted(self._suffixes.items(), key=lambda pair: (-pair[1], pair[0]))[:3]
        listed = ", ".join(f"{count} x {suffix}" for suffix, count in most)
        return f"{listed}, ..." if len(self._suffixes) > len(most) else listed

    def __bool__(self) -> bool:
        return bool(self._counts)

    def __str__(self) -> str:
        shown = {**self._examples, OTHER: self.files}
        return ", ".join(
            f"{count} {reason.one if count == 1 else reason.many} ({shown[reason]})"
            for reason, count in self._counts.items()
        )
