"""From a data configuration to data loaders for training and evaluation.

The result does not depend on the number of workers, and making or using a loader never draws from
the global random state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch.utils.data import DataLoader, Sampler

from mergevq.data.images.dataset import ImageDataset, Sample, collate
from mergevq.data.images.formats.limits import DEFAULT_LIMITS, Limits, MaxAspect, MaxPixels
from mergevq.data.images.sampler import Draw, EvalSampler, StepSampler
from mergevq.data.images.sources import open_source
from mergevq.data.listing.splits import Split
from mergevq.data.watched import WatchedLoader
from mergevq.ranges import Range, Workers, check_numbers

WORKERS = "--data.workers"
"""What a training run calls the number of processes that read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """Where the pictures are and how they are read."""

    path: str = "builtin:photos"
    """A folder of pictures, tar shards, or `builtin:photos` and `builtin:digits`."""
    holdout: Annotated[float, Range(0, 1, ends="()")] = 0.05
    """Share of the pictures kept for validation where the path names no splits, in (0, 1)."""
    max_scale: Annotated[float, Range(1, 1000)] | None = None
    """Random crops see the picture with its short side scaled to between 1 and `max_scale` times the image
    size. None is the data's own choice: 3 for `builtin:photos`, otherwise 1, the whole short side."""
    workers: Workers = 2
    """Processes that read pictures, for each device; 0 reads them in the training process."""
    max_failures: Annotated[int, Range(0, 10**9)] = 100
    """Unreadable pictures that a run survives; 0 stops at the first one."""
    max_pixels: MaxPixels = DEFAULT_LIMITS.max_pixels
    """Width times height above which a picture counts as unreadable: at 4 bytes a decoded pixel, times the
    processes that read."""
    max_aspect: MaxAspect = DEFAULT_LIMITS.max_aspect
    """Longer side over shorter side above which a picture counts as unreadable."""

    def __post_init__(self) -> None:
        check_numbers(self, "data")

    @property
    def limits(self) -> Limits:
        """How large a picture may be."""
        return Limits(max_pixels=self.max_pixels, max_aspect=self.max_aspect)


def train_loader(
    config: DataConfig,
    *,
    size: int,
    batch_size: int,
    seed: int,
    rank: int = 0,
    world: int = 1,
    start: int = 0,
    steps: int | None = None,
    view_size: int | None = None,
    pin_memory: bool = False,
) -> DataLoader[Sample]:
    """Batches of random crops, one a step; the same for any number of workers.

    Args:
        config: the data.
        size: pixels a side.
        batch_size: images a batch on this rank.
        seed: decides the order and every crop.
        rank: this process, in [0, world).
        world: number of processes.
        start: the step to begin at; a resumed run sees exactly the batches that it would have seen.
        steps: the step to stop before; None never stops.
        view_size: pixels a side of the view for alignment; None makes none.
        pin_memory: whether batches come in page-locked memory.

    Returns:
        A loader of `Batch`.

    Raises:
        UsageError, DataError: the data cannot be used.
    """
    source = open_source(config.path, "train", config.holdout)
    dataset = ImageDataset(source, size, "train", view_size, config.max_scale, config.limits)
    sampler = StepSampler(len(source), batch_size, seed, rank, world, start, steps)
    return _loader(dataset, sampler, config.workers, pin_memory, WORKERS)


def eval_loader(
    config: DataConfig,
    *,
    size: int,
    batch_size: int,
    rank: int = 0,
    world: int = 1,
    pin_memory: bool = False,
    split: Split = "val",
    limit: int | None = None,
    option: str = WORKERS,
) -> DataLoader[Sample]:
    """Batches of centre crops of the pictures to evaluate, each exactly once over all ranks.

    Args:
        config: the data.
        size: pixels a side.
        batch_size: images a batch on this rank; the last one, and one with an unreadable picture, has fewer.
        rank: this process, in [0, world).
        world: number of processes.
        pin_memory: whether batches come in page-locked memory.
        split: which pictures.
        limit: at most so many, evenly spaced over the data, which may be sorted by class; None: all.
        option: what the user calls the number of workers.

    Returns:
        A loader of `Batch`.

    Raises:
        UsageError, DataError: the data cannot be used.
    """
    source = open_source(config.path, split, config.holdout)
    sampler = EvalSampler(len(source), batch_size, rank, world, limit)
    dataset = ImageDataset(source, size, "eval", limits=config.limits)
    return _loader(dataset, sampler, config.workers, pin_memory, option)


def _loader(
    dataset: ImageDataset, sampler: Sampler[list[Draw]], workers: int, pin_memory: bool, option: str
) -> DataLoader[Sample]:
    return WatchedLoader(
        dataset,
        workers=workers,
        option=option,
        batch_sampler=sampler,
        collate_fn=collate,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
    )
