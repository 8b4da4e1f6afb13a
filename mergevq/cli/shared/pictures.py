"""The pictures that a command line names, read one batch at a time.

A picture that cannot be read is named and left out; the command goes on, and ends with exit code 1.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image
from tqdm import tqdm

from mergevq.cli.shared.common import on_terminal
from mergevq.data.images.decode import load_image, reading, to_rgb
from mergevq.data.images.formats.limits import DEFAULT_LIMITS, Limits
from mergevq.data.images.pixels import center_crop, decoded_side, middle_crop
from mergevq.data.images.sources import ImageSource, open_source
from mergevq.data.listing.names import is_archive
from mergevq.errors import DataError
from mergevq.storage.files import expanded

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that has not been read yet."""

    name: str
    """For messages and for the output: a file's own name, or its path below the folder that was given."""
    open: Callable[[int | None, Limits], Image.Image]
    """Upright RGB; takes what `to_rgb` takes, raises DataError."""


def find_pictures(paths: Sequence[str]) -> list[Picture]:
    """The pictures of files, folders, tar shards and built-in sets, in the order given.

    Raises:
        UsageError: a path does not exist.
        DataError: a folder holds no pictures.
    """
    found: list[Picture] = []
    for path in paths:
        place = expanded(path)
        if place.is_file() and not is_archive(path):
            found.append(Picture(place.name, partial(load_image, place)))
            continue
        source = open_source(path, "all")
        root = place if place.is_dir() else ""
        for index in range(len(source)):
            name = source.name(index)
            found.append(
                Picture(os.path.relpath(name, root) if root else name, partial(_open, source, index))
            )
    return found


def _open(source: ImageSource, index: int, at_least: int | None, limits: Limits) -> Image.Image:
    with reading(source.name(index)):
        return to_rgb(source.open(index), at_least, limits)


class PictureReader:
    """Batches of pictures of one size.

    Args:
        pictures: what to read.
        size: S, the short side is resized and the middle cut out; None resizes nothing and cuts the middle
            to multiples of `stride`. Then the first picture decides the size, and others are left out.
        stride: pixels a side for each latent position.
        batch_size: pictures a batch.
        limits: how large a picture may be.

    Attributes:
        skipped: how many could not be read so far.
    """

    def __init__(
        self,
        pictures: Sequence[Picture],
        size: int | None,
        stride: int,
        batch_size: int,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self.pictures = pictures
        self.size = size
        self.stride = stride
        self.batch_size = batch_size
        self.limits = limits
        self.skipped = 0
        self._shape: tuple[int, ...] | None = None

    def __iter__(self) -> Iterator[tuple[list[str], np.ndarray]]:
        """Names and (B, 3, H, W) uint8.

        Raises:
            DataError: not one picture could be read.
        """
        names: list[str] = []
        images: list[np.ndarray] = []
        for picture in tqdm(self.pictures, unit="picture", disable=not on_terminal()):
            try:
                images.append(self._read(picture))
                names.append(picture.name)
            except DataError as error:
                logger.warning("%s; it is left out", error)
                self.skipped += 1
            if len(images) == self.batch_size:
                yield names, np.stack(images)
                names, images = [], []
        if images:
            yield names, np.stack(images)
        if self.skipped == len(self.pictures):
            raise DataError(f"no picture could be read, of {self.skipped}")

    def check_complete(self) -> None:
        """Raises, after the work.

        Raises:
            DataError: pictures were left out.
        """
        if self.skipped:
            raise DataError(
                f"{self.skipped} of {len(self.pictures)} pictures had to be left out; the others are done"
            )

    def _read(self, picture: Picture) -> np.ndarray:
        if self.size is not None:
            return center_crop(picture.open(decoded_side(self.size), self.limits), self.size)
        with reading(picture.name):
            pixels = middle_crop(picture.open(None, self.limits), self.stride)
        self._shape = self._shape or pixels.shape
        if pixels.shape != self._shape:
            raise DataError(
                f"{picture.name} gives {pixels.shape[2]} x {pixels.shape[1]} px and the pictures before it "
                f"{self._shape[2]} x {self._shape[1]}; encode one size at a time, or use --size"
            )
        return pixels
