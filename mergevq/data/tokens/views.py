"""Pictures to the views that are made into tokens, and the number of tokens that each view keeps.

View 0 is the centre crop, view 1 its mirror image, and further ones are random crops. What a view looks like
and keeps follows from (seed, picture, view) alone, not from the process or the order in which it is made.

Legend: n pictures, V views of each, S pixels a side.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from mergevq.data.images.dataset import Failure, read_picture
from mergevq.data.images.formats.limits import DEFAULT_LIMITS, Limits
from mergevq.data.images.pixels import decoded_side
from mergevq.data.images.sampler import random_generator
from mergevq.data.images.sources import ImageSource
from mergevq.data.images.transforms import center_crop, random_crop_flip
from mergevq.data.tokens.meta import TokenMeta, Unreadable
from mergevq.data.workers import outlive_signals

CHUNK = 16
"""Pictures that travel together from a process that reads."""


class Views(NamedTuple):
    """The views of a few pictures.

    Attributes:
        pixels: (n, V, 3, S, S) uint8, of the pictures that could be read.
        counts: for each of them the kept counts of its V views.
        labels: its class.
        unreadable: the other pictures.
    """

    pixels: torch.Tensor
    counts: list[list[int]]
    labels: list[int]
    unreadable: list[Unreadable]


class ViewDataset(Dataset[Views]):
    """The views of the pictures with the given numbers.

    Args:
        source: the pictures.
        meta: size, views, counts and seed.
        limits: how large a picture may be.
    """

    def __init__(self, source: ImageSource, meta: TokenMeta, limits: Limits = DEFAULT_LIMITS) -> None:
        self.source = source
        self.meta = meta
        self.limits = limits
        self._at_least = decoded_side(round(meta.image_size * source.max_scale))

    def __getitem__(self, images: Sequence[int]) -> Views:
        pixels: list[torch.Tensor] = []
        views = Views(torch.empty(0), [], [], [])
        for image in images:
            picture = read_picture(self.source, image, self._at_least, self.limits)
            if isinstance(picture, Failure):
                views.unreadable.append(Unreadable(image, picture.name, picture.reason))
                continue
            crops, counts = self._views(picture, image)
            pixels.append(crops)
            views.counts.append(counts)
            views.labels.append(self.source.label(image))
        return views._replace(pixels=torch.stack(pixels)) if pixels else views

    def _views(self, picture: Image.Image, image: int) -> tuple[torch.Tensor, list[int]]:
        """(V, 3, S, S) crops of a picture, and their kept counts."""
        size = self.meta.image_size
        centre = center_crop(picture, size)
        crops, counts = [centre, centre.flip(-1)][: self.meta.views], []
        for view in range(self.meta.views):
            generator = random_generator(self.meta.seed % 2**64 << 64 | view << 32 | image)
            counts.append(self.meta.counts[int(generator.integers(len(self.meta.counts)))])
            if view > 1:
                crops.append(random_crop_flip(picture, size, generator, self.source.max_scale))
        return torch.stack(crops), counts


def view_loader(
    source: ImageSource,
    meta: TokenMeta,
    shards: Iterable[int],
    workers: int,
    limits: Limits = DEFAULT_LIMITS,
) -> DataLoader[Views]:
    """The views of the pictures of some shards, shard after shard, `CHUNK` pictures at a time."""
    chunks = [
        images[first : first + CHUNK]
        for images in map(meta.shard_images, shards)
        for first in range(0, len(images), CHUNK)
    ]
    return DataLoader(
        ViewDataset(source, meta, limits),
        batch_size=None,
        sampler=chunks,  # each item is what the data set is indexed by
        num_workers=workers,
        worker_init_fn=outlive_signals,
        generator=torch.Generator(),  # its own, or the loader would draw from the global one
    )
