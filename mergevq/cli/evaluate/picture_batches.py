"""Pictures of a data set for an evaluation: batches in the order of the data, a broken picture left out."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field

from tqdm import tqdm

from mergevq.cli.shared.common import on_terminal
from mergevq.data.images.dataset import Batch, Failure, ImageDataset
from mergevq.data.images.decode import reading
from mergevq.data.images.formats.limits import DEFAULT_LIMITS, Limits
from mergevq.data.images.loader import DataConfig, eval_loader
from mergevq.data.images.sampler import EvalSampler
from mergevq.data.images.sources import ImageSource
from mergevq.data.listing.splits import Split
from mergevq.errors import DataError

logger = logging.getLogger(__name__)


@dataclass
class PictureBatches:
    """Centre crops of the pictures of a path, and those that could not be read.

    Attributes:
        path: image folder, tar shards or builtin:NAME.
        split: which part.
        size: pixels a side; 0 is the short side of the first picture.
        batch_size: pictures a batch.
        limit: at most so many, evenly spaced; None: all.
        workers: processes that read pictures.
        limits: how large a picture may be.
        failures: the pictures left out so far.
    """

    path: str
    split: Split
    size: int
    batch_size: int
    limit: int | None
    workers: int
    limits: Limits = DEFAULT_LIMITS
    failures: list[Failure] = field(default_factory=list)

    def __post_init__(self) -> None:
        config = DataConfig(
            path=self.path,
            workers=self.workers,
            max_pixels=self.limits.max_pixels,
            max_aspect=self.limits.max_aspect,
        )
        loader = eval_loader(
            config,
            size=self.size or 1,
            batch_size=self.batch_size,
            split=self.split,
            limit=self.limit,
            option="--workers",
        )
        dataset, sampler = loader.dataset, loader.batch_sampler
        assert isinstance(dataset, ImageDataset) and isinstance(sampler, EvalSampler)
        self.source: ImageSource = dataset.source
        self.indices = sampler.indices
        self.size = dataset.size = self.size or _short_side(dataset.source, self.limits)
        self._loader = loader

    def __iter__(self) -> Iterator[Batch]:
        for batch in tqdm(self._loader, unit="batch", desc="read", disable=not on_terminal()):
            for failure in batch.failures:
                logger.warning("cannot read %s: %s; it is left out", failure.name, failure.reason)
            self.failures += batch.failures
            if len(batch.images):
                yield batch


def _short_side(source: ImageSource, limits: Limits) -> int:
    """Of the first picture that can be opened and is not too large."""
    for index in range(len(source)):
        try:
            with reading(source.name(index)):
                image = source.open(index)
                limits.admit(image)
                return min(image.size)
        except DataError:
            continue
    raise DataError("no picture can be read")
