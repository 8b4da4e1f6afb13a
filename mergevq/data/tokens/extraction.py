"""Pictures to token shards, by any number of processes, each shard whole or not at all.

Shard s belongs to rank s mod world. A rank makes those of its shards that are not there, so a run that was
killed goes on with the shard at which it was. The records do not depend on the number of processes; nor on the
batch size, except that a device may round sums otherwise and so flip a code's bit that is all but zero.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from mergevq.data.images.dataset import Failure
from mergevq.data.images.failures import FailureLog
from mergevq.data.images.formats.limits import DEFAULT_LIMITS, Limits
from mergevq.data.images.sources import ImageSource
from mergevq.data.images.transforms import to_float
from mergevq.data.listing.splits import Split, content_digest
from mergevq.data.tokens.meta import TokenMeta, Unreadable, missing_shards, read_summary
from mergevq.data.tokens.views import CHUNK, Views, view_loader
from mergevq.data.tokens.writer import claim, only_rank, remove_leftovers, write_shard
from mergevq.errors import UsageError
from mergevq.models.store import fingerprint
from mergevq.models.tokenizer.merge import merge_schedule
from mergevq.models.tokenizer.tokenizer import Tokenizer

logger = logging.getLogger(__name__)


def describe(
    tokenizer: Tokenizer,
    source: ImageSource,
    split: Split,
    *,
    counts: Sequence[int] = (),
    views: int = 2,
    seed: int = 0,
    shard_size: int = 8192,
) -> TokenMeta:
    """The description of the tokens that are to be made.

    Args:
        tokenizer: makes them.
        source: the pictures.
        split: which part of the data they are.
        counts: kept counts, of which each record draws one; by default the preset's.
        views: records of each picture.
        seed: decides the draws and the crops.
        shard_size: pictures a shard.

    Raises:
        UsageError: a count cannot be reached, or a number is out of range.
    """
    config = tokenizer.config
    counts = sorted(set(counts)) or [config.merge.keep]
    for keep in counts:
        merge_schedule(config.length, keep, config.encoder.depth, config.merge.schedule)
    return TokenMeta(
        fingerprint=fingerprint(tokenizer),
        tokenizer=config.name,
        bits=config.quantizer.bits,
        image_size=config.image_size,
        grid=(config.grid, config.grid),
        counts=tuple(counts),
        class_names=tuple(source.classes),
        split=split,
        images=len(source),
        data=content_digest(source),
        views=views,
        seed=seed,
        shard_size=shard_size,
    )


def extract(
    tokenizer: Tokenizer,
    source: ImageSource,
    folder: Path,
    meta: TokenMeta,
    *,
    batch_size: int = 64,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    max_failures: int = 100,
    limits: Limits = DEFAULT_LIMITS,
    progress: Callable[[int], object] = lambda images: None,
) -> list[int]:
    """Makes the shards of one rank that are not there yet.

    Args:
        tokenizer: in evaluation mode.
        source: the pictures that `meta` describes.
        folder: for the shards; made where it is missing.
        meta: what `describe` returned, the same for every rank.
        batch_size: views of one kept count in one pass.
        rank: this process, in [0, world).
        world: number of processes.
        workers: processes that read pictures.
        max_failures: unreadable pictures that are left out before this call gives up.
        limits: how large a picture may be.
        progress: called with the number of pictures done since the last call.

    Returns:
        The shards of all ranks that are missing now; none where the tokens are complete.

    Raises:
        UsageError: rank, world or batch size is out of range, the folder was made with other settings, or another
            process is making these shards.
        CheckpointError: the folder was made by another tokenizer.
        DataError: too many pictures cannot be read, or a shard is damaged.
        OutputError: a shard cannot be written; the others are whole.
    """
    if not 0 <= rank < world:
        raise UsageError(f"rank {rank} is not in [0, {world}), the number of processes")
    if batch_size < 1:
        raise UsageError(f"batch_size is {batch_size}; it must be at least 1")
    claim(folder, meta)
    own = range(rank, meta.shards, world)
    with only_rank(folder, rank, world):
        remove_leftovers(folder, own)
        todo = _absent(folder, meta, own)
        failures = FailureLog(max_failures, "--max-failures")
        chunks = iter(view_loader(source, meta, todo, workers, limits))
        for shard in todo:
            images = meta.shard_images(shard)
            builder = _ShardBuilder(tokenizer, meta, len(images), batch_size)
            for views in islice(chunks, -(-len(images) // CHUNK)):
                failures.update(Failure(one.name, one.reason) for one in views.unreadable)
                builder.add(views)
                progress(len(views.labels) + len(views.unreadable))
            write_shard(folder, meta, shard, builder.finish(), builder.unreadable)
            logger.info("shard %d of %d: %d pictures", shard + 1, meta.shards, len(images))
    return missing_shards(folder, meta)


class _ShardBuilder:
    """The arrays of one shard. Views wait until there are enough of one kept count for a pass."""

    def __init__(self, tokenizer: Tokenizer, meta: TokenMeta, images: int, batch_size: int) -> None:
        layout = meta.layout(images * meta.views)
        self.arrays = {name: np.zeros(shape, dtype) for name, (dtype, shape) in layout.items()}
        self.unreadable: list[Unreadable] = []
        self._tokenizer = tokenizer
        self._batch_size = batch_size
        self._rows = 0
        self._waiting: dict[int, list[tuple[int, torch.Tensor]]] = {keep: [] for keep in meta.counts}

    def add(self, views: Views) -> None:
        """Takes the views of the next pictures."""
        self.unreadable += views.unreadable
        for label, counts, pixels in zip(views.labels, views.counts, views.pixels, strict=True):
            for keep, view in zip(counts, pixels, strict=True):
                self.arrays["label"][self._rows] = label
                self.arrays["keep"][self._rows] = keep
                self._waiting[keep].append((self._rows, view))
                self._rows += 1
                if len(self._waiting[keep]) == self._batch_size:
                    self._encode(keep)

    def finish(self) -> dict[str, np.ndarray]:
        """The arrays, after the passes that are still due."""
        for keep, waiting in self._waiting.items():
            if waiting:
                self._encode(keep)
        return {name: array[: self._rows] for name, array in self.arrays.items()}

    @torch.inference_mode()
    def _encode(self, keep: int) -> None:
        rows = [row for row, _ in self._waiting[keep]]
        images = torch.stack([view for _, view in self._waiting[keep]])  # (B, 3, S, S)
        tokens = self._tokenizer.encode(to_float(images.to(self._tokenizer.device)), keep).to("cpu")
        self.arrays["indices"][rows, :keep] = tokens.indices.numpy()
        self.arrays["source"][rows] = tokens.source.numpy()
        self._waiting[keep] = []


def _absent(folder: Path, meta: TokenMeta, shards: Sequence[int]) -> list[int]:
    """Those that are not there; the others are checked."""
    missing = set(missing_shards(folder, meta))
    for shard in shards:
        if shard not in missing:
            read_summary(folder, meta, shard)
    return [shard for shard in shards if shard in missing]
