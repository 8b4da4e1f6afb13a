"""Token shards to batches for training: read by memory map, in an order that is a function of the step.

In: a folder that `mergevq tokens` made (`token_meta` describes it). Out: `TokenBatch`es. A batch is gathered
from maps of the files; a bounded number of shards is open at a time. Labels, kept counts and checksums, ten bytes
a record, are held in memory; every record that is read is compared with its checksum.

Legend: B batch, Kmax the largest kept count, L positions.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from mergevq.data.images.sampler import Draw, StepSampler
from mergevq.data.tokens.checksums import checksums
from mergevq.data.tokens.meta import (
    CHECKSUMS,
    ShardSummary,
    TokenMeta,
    Unreadable,
    missing_shards,
    read_meta,
    read_summary,
    shard_folder,
)
from mergevq.data.watched import WatchedLoader
from mergevq.errors import DataError, UsageError
from mergevq.models.store import check_fingerprint
from mergevq.models.tokenizer.tokenizer import Tokenizer
from mergevq.storage.arrays import read_array
from mergevq.storage.files import expanded
from mergevq.tokens import TokenBatch

logger = logging.getLogger(__name__)


class Records(Protocol):
    """What batches are made of: `TokenShards`, or some of its rows."""

    def __len__(self) -> int: ...

    def batch(self, rows: np.ndarray) -> TokenBatch:
        """The records with these numbers."""


class TokenShards:
    """The records of a folder, by number: those of picture 0, then those of picture 1, and so on.

    Args:
        folder: what `mergevq tokens` wrote, all of it.
        max_open: shards that stay mapped; each holds two file descriptors. Where there are many more shards
            than that, most of the time goes into opening them: make larger ones.

    Attributes:
        meta: what the records are.
        unreadable: the pictures that have none.

    Raises:
        UsageError: the folder holds no tokens.
        DataError: shards are missing, damaged or of other tokens.
    """

    def __init__(self, folder: str | Path, max_open: int = 200) -> None:
        self.folder = expanded(folder)
        self.meta: TokenMeta = read_meta(self.folder)
        self._check_complete()
        summaries = [read_summary(self.folder, self.meta, shard) for shard in range(self.meta.shards)]
        self.unreadable: list[Unreadable] = [one for summary in summaries for one in summary.unreadable]
        self._rows = [summary.rows for summary in summaries]
        self._ends = np.cumsum(self._rows)
        if not len(self):
            raise DataError(f"{self.folder} holds no records: none of its pictures could be read")
        self._keep, self._labels = (
            np.concatenate([self._load(shard, name) for shard in range(self.meta.shards)])
            for name in ("keep", "label")
        )
        self._checksums = self._load_checksums(summaries)
        self._check(np.isin(self._keep, self.meta.counts), np.arange(len(self)))
        self._check((self._labels >= 0) & (self._labels < self.meta.classes), np.arange(len(self)))
        self._max_open = max_open
        self._open: OrderedDict[int, tuple[np.ndarray, np.ndarray]] = OrderedDict()

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def labels(self) -> np.ndarray:
        """(n,) int32, the class of each record."""
        return self._labels

    def batch(self, rows: np.ndarray) -> TokenBatch:
        """Records by number.

        Args:
            rows: (B,) integers, in any order, repeated or not.

        Raises:
            UsageError: there is no such record.
            DataError: a shard is damaged.
        """
        rows = np.asarray(rows, np.int64)
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
            raise UsageError(f"rows reach from {rows.min()} to {rows.max()}; there are {len(self)} records")
        indices = np.empty((len(rows), self.meta.counts[-1]), np.int32)
        source = np.empty((len(rows), self.meta.length), np.uint16)
        order = np.argsort(rows)
        shards, first = np.unique(self._shards_of(rows[order]), return_index=True)
        for shard, places in zip(shards.tolist(), np.split(order, first[1:]), strict=len(rows) > 0):
            within = rows[places] - (self._ends[shard] - self._rows[shard])
            all_indices, all_source = self._mapped(shard)
            indices[places], source[places] = all_indices[within], all_source[within]
        labels, keep = self._labels[rows], self._keep[rows]
        if self._checksums is not None:
            self._check(checksums(indices, source, keep, labels) == self._checksums[rows], rows)
        self._check((indices.min(1) >= 0) & (indices.max(1) < 2**self.meta.bits), rows)
        self._check(source.max(1) < keep, rows)
        parts = (labels, indices, source, keep)
        return TokenBatch(*(torch.from_numpy(part.astype(np.int64)) for part in parts))

    def check_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Makes sure that the records are those of a tokenizer.

        Raises:
            CheckpointError: another made them.
        """
        check_fingerprint(tokenizer, self.meta.fingerprint)

    def __getstate__(self) -> dict[str, Any]:
        """For a process that reads: it opens the files anew, where a pickled map would be a copy."""
        return self.__dict__ | {"_open": OrderedDict()}

    def _shards_of(self, rows: np.ndarray) -> np.ndarray:
        return np.searchsorted(self._ends, rows, side="right")

    def _mapped(self, shard: int) -> tuple[np.ndarray, np.ndarray]:
        if shard not in self._open:
            while len(self._open) >= self._max_open:
                self._open.popitem(last=False)
            self._open[shard] = (
                self._load(shard, "indices", mapped=True),
                self._load(shard, "source", mapped=True),
            )
        self._open.move_to_end(shard)
        return self._open[shard]

    def _load_checksums(self, summaries: list[ShardSummary]) -> np.ndarray | None:
        """(n,) uint32; None where a shard has none."""
        if all(summary.checksums for summary in summaries):
            return np.concatenate([self._load(shard, CHECKSUMS) for shard in range(self.meta.shards)])
        logger.warning(
            "%s was made by an earlier version and has no checksums: damage to it may go unnoticed; `mergevq tokens` "
            "into another folder makes it anew",
            self.folder,
        )
        return None

    def _load(self, shard: int, name: str, *, mapped: bool = False) -> np.ndarray:
        path = shard_folder(self.folder, shard) / f"{name}.npy"
        layout: dict[str, Any] = self.meta.layout(self._rows[shard])
        dtype, shape = layout.get(name, (np.uint32, (self._rows[shard],)))
        try:
            return read_array(path, dtype, shape, mapped=mapped)
        except ValueError as error:
            raise DataError(
                f"{path} is damaged: {error}; delete the folder {path.parent.name} and run `mergevq tokens` again"
            ) from error

    def _check(self, sound: np.ndarray, rows: np.ndarray) -> None:
        if not sound.all():
            shard = int(self._shards_of(rows[sound.argmin()]))
            raise DataError(
                f"{shard_folder(self.folder, shard)} is damaged: a value is not the one that was written, or is "
                "outside what its description allows; delete that folder and run `mergevq tokens` again"
            )

    def _check_complete(self) -> None:
        missing = missing_shards(self.folder, self.meta)
        if missing:
            raise DataError(
                f"{self.folder} is incomplete: {len(missing)} of {self.meta.shards} shards are missing, first "
                f"{shard_folder(self.folder, missing[0]).name}; run `mergevq tokens` again with the same settings"
            )


def token_loader(
    records: Records,
    batch_size: int,
    *,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
    start_step: int = 0,
    steps: int | None = None,
    workers: int = 0,
    pin_memory: bool = False,
) -> DataLoader[TokenBatch]:
    """Shuffled batches, one a step; every record once an epoch over all ranks, in the order of `StepSampler`.

    Args:
        records: of which each batch is some.
        batch_size: B on this rank.
        seed: decides the order.
        rank: this process, in [0, world_size).
        world_size: number of processes.
        start_step: the step to begin at; a resumed run sees exactly the batches that it would have seen.
        steps: the step to stop before; None never stops.
        workers: processes that read; 0 suffices for memory maps on a local disk.
        pin_memory: whether batches come in page-locked memory.

    Returns:
        A loader of `TokenBatch`.

    Raises:
        UsageError: a count is out of range.
    """
    return WatchedLoader(
        _Batches(records),
        workers=workers,
        option="--data.workers",
        batch_size=None,
        sampler=StepSampler(len(records), batch_size, seed, rank, world_size, start_step, steps),
        pin_memory=pin_memory,
    )


class _Batches(Dataset[TokenBatch]):
    """Records by the draws of a whole batch."""

    def __init__(self, records: Records) -> None:
        self.records = records

    def __getitem__(self, draws: list[Draw]) -> TokenBatch:
        return self.records.batch(np.array([draw.index for draw in draws]))
