"""Pictures to samples to batches.

The data set is indexed by `Draw`s: what a sample looks like depends on the draw alone, never on the
worker that makes it or on what was made before. A picture that cannot be read costs no step: in
training another picture, chosen from the draw's key, takes its place; in evaluation it is left out.
Either way its name and the reason travel with the batch.

Legend: B batch, S pixels a side, V pixels a side of the alignment view.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from PIL import Image
from torch.utils.data import Dataset

from mergevq.data.images.decode import reading, reason, to_rgb
from mergevq.data.images.formats.limits import DEFAULT_LIMITS, Limits
from mergevq.data.images.pixels import decoded_side
from mergevq.data.images.sampler import Draw, random_generator
from mergevq.data.images.sources import ImageSource
from mergevq.data.images.transforms import center_crop, random_crop_flip, random_resized_crop
from mergevq.errors import DataError, UsageError

_TRIES = 100


class Failure(NamedTuple):
    """A picture that could not be read."""

    name: str
    reason: str


class Sample(NamedTuple):
    """One picture of a batch.

    Attributes:
        image: (3, S, S) uint8; None where an evaluation picture could not be read.
        label: its class.
        name: its path.
        view: (3, V, V) uint8, or None where none was asked for.
        failures: what could not be read on the way to this sample.
    """

    image: torch.Tensor | None
    label: int
    name: str
    view: torch.Tensor | None
    failures: tuple[Failure, ...]


class Batch(NamedTuple):
    """A batch. A tuple, so that a DataLoader can pin it and Lightning can move it.

    Attributes:
        images: (B, 3, S, S) uint8.
        labels: (B,) int64.
        names: B paths.
        views: (B, 3, V, V) uint8, or None.
        failures: the pictures that could not be read.
    """

    images: torch.Tensor
    labels: torch.Tensor
    names: list[str]
    views: torch.Tensor | None
    failures: list[Failure]


class ImageDataset(Dataset[Sample]):
    """Samples of a source.

    Args:
        source: the pictures.
        size: S.
        mode: "train" crops and flips at random, "eval" takes the centre.
        view_size: V, for a second, stronger crop of the same picture; training only.
        max_scale: how far random crops zoom in; None is the source's own choice.
        limits: how large a picture may be.

    Raises:
        UsageError: a size or a scale is out of range.
    """

    def __init__(
        self,
        source: ImageSource,
        size: int,
        mode: Literal["train", "eval"] = "train",
        view_size: int | None = None,
        max_scale: float | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        scale = source.max_scale if max_scale is None else max_scale
        if size < 1 or (view_size is not None and view_size < 1):
            raise UsageError(f"image size {size}, view size {view_size}: at least 1 pixel is wanted")
        if scale < 1:
            raise UsageError(f"max_scale is {scale}; it must be at least 1")
        self.source = source
        self.size = size
        self.mode = mode
        self.view_size = view_size
        self.max_scale = scale
        self.limits = limits

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, draw: Draw) -> Sample:
        """The sample of a draw.

        Raises:
            DataError: no readable picture was found in a hundred tries.
        """
        return self._train_sample(draw) if self.mode == "train" else self._eval_sample(draw)

    def _train_sample(self, draw: Draw) -> Sample:
        generator = random_generator(draw.key)
        index = draw.index
        failures: list[Failure] = []
        while len(failures) < _TRIES:
            image = read_picture(self.source, index, self._at_least, self.limits)
            if isinstance(image, Failure):
                failures.append(image)
                index = int(generator.integers(len(self.source)))
                continue
            crop = random_crop_flip(image, self.size, generator, self.max_scale)
            view = random_resized_crop(image, self.view_size, generator) if self.view_size else None
            return Sample(crop, self.source.label(index), self.source.name(index), view, tuple(failures))
        raise DataError(
            f"none of {_TRIES} pictures drawn could be read, first {failures[0].name} ({failures[0].reason})"
        )

    def _eval_sample(self, draw: Draw) -> Sample:
        label, name = self.source.label(draw.index), self.source.name(draw.index)
        image = read_picture(self.source, draw.index, decoded_side(self.size), self.limits)
        if isinstance(image, Failure):
            return Sample(None, label, name, None, (image,))
        return Sample(center_crop(image, self.size), label, name, None, ())

    @property
    def _at_least(self) -> int:
        """Pixels of the short side that training can use."""
        return 2 * max(round(self.size * self.max_scale), self.view_size or 0)


def read_picture(
    source: ImageSource, index: int, at_least: int | None = None, limits: Limits = DEFAULT_LIMITS
) -> Image.Image | Failure:
    """A picture of a source as upright RGB, or why it cannot be read; the rest as for `to_rgb`."""
    name = source.name(index)
    try:
        with reading(name):
            return to_rgb(source.open(index), at_least, limits)
    except DataError as error:
        return Failure(name, reason(error.__cause__))


def collate(samples: list[Sample]) -> Batch:
    """The batch of some samples; those without a picture leave only their failures.

    A batch of which nothing could be read has B = 0 and images of no size.
    """
    read = [(sample, sample.image) for sample in samples if sample.image is not None]
    views = [sample.view for sample, _ in read if sample.view is not None]
    return Batch(
        images=torch.stack([image for _, image in read])
        if read
        else torch.empty(0, 3, 0, 0, dtype=torch.uint8),
        labels=torch.tensor([sample.label for sample, _ in read], dtype=torch.int64),
        names=[sample.name for sample, _ in read],
        views=torch.stack(views) if views else None,
        failures=[failure for sample in samples for failure in sample.failures],
    )
