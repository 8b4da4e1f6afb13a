"""Which image stands where in which batch, as a pure function of (seed, batch number).

Nothing is remembered between batches, so a run resumes at batch b by asking for batch b. All ranks
share one permutation per epoch and take their slices of each global batch; batches run across the
borders of epochs, so every epoch shows every image exactly once, whatever the batch size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler

from mergevq.errors import UsageError

_MAX_LENGTH = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Draw:
    """One image of a batch: which, and the key of all randomness that its transforms use."""

    index: int
    key: int


def random_generator(key: int) -> np.random.Generator:
    """The counter-based generator of a 128-bit key; different keys give independent streams."""
    return np.random.Generator(np.random.Philox(key=key))


class StepSampler(Sampler[list[Draw]]):
    """Batches of shuffled training images, one a step.

    Args:
        length: images in the data set.
        batch_size: images a batch on this rank.
        seed: any integer; decides every permutation and every key.
        rank: this process, in [0, world).
        world: number of processes.
        start: the first batch to yield; a run that has done b steps resumes with start = b.
        steps: the batch number to stop before; None never stops.

    Raises:
        UsageError: a count is out of range.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        start: int = 0,
        steps: int | None = None,
    ) -> None:
        _check(length, batch_size, rank, world)
        if start < 0:
            raise UsageError(f"start is {start}; batches are counted from 0")
        self.length = length
        self.batch_size = batch_size
        self.seed = seed % 2**64
        self.rank = rank
        self.world = world
        self.start = start
        self.steps = steps
        self._epochs: dict[int, np.ndarray] = {}

    def batch(self, number: int) -> list[Draw]:
        """The draws of this rank in batch `number`."""
        first = (number * self.world + self.rank) * self.batch_size
        draws = []
        for position in range(first, first + self.batch_size):
            epoch, offset = divmod(position, self.length)
            index = int(self._permutation(epoch)[offset])
            draws.append(Draw(index, self._key(epoch, index)))
        return draws

    def __iter__(self) -> Iterator[list[Draw]]:
        number = self.start
        while self.steps is None or number < self.steps:
            yield self.batch(number)
            number += 1

    def __len__(self) -> int:
        if self.steps is None:
            raise TypeError("an endless sampler has no length; pass steps to give it one")
        return max(0, self.steps - self.start)

    def _permutation(self, epoch: int) -> np.ndarray:
        if epoch not in self._epochs:
            self._epochs = {known: order for known, order in self._epochs.items() if known == epoch - 1}
            # No image has the index _MAX_LENGTH, so no image shares the permutation's stream.
            generator = random_generator(self._key(epoch, _MAX_LENGTH))
            self._epochs[epoch] = generator.permutation(self.length)
        return self._epochs[epoch]

    def _key(self, epoch: int, index: int) -> int:
        return self.seed << 64 | (epoch % 2**32) << 32 | index


class EvalSampler(Sampler[list[Draw]]):
    """Batches in which every image stands exactly once over all ranks, in the order of the data.

    Rank r takes the images r, r + world, ...; ranks may differ by one image, none is padded.

    Args:
        length: images in the data set.
        batch_size: images a batch on this rank.
        rank: this process, in [0, world).
        world: number of processes.
        limit: at most so many images over all ranks, evenly spaced over the data; None takes every one.

    Raises:
        UsageError: a count is out of range.
    """

    def __init__(
        self, length: int, batch_size: int, rank: int = 0, world: int = 1, limit: int | None = None
    ) -> None:
        _check(length, batch_size, rank, world)
        if limit is not None and limit < 1:
            raise UsageError(f"limit is {limit}; at least 1 image is wanted")
        count = length if limit is None else min(limit, length)
        self.indices = [place * length // count for place in range(rank, count, world)]
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[list[Draw]]:
        for first in range(0, len(self.indices), self.batch_size):
            yield [Draw(index, index) for index in self.indices[first : first + self.batch_size]]

    def __len__(self) -> int:
        return -(-len(self.indices) // self.batch_size)


def _check(length: int, batch_size: int, rank: int, world: int) -> None:
    if not 1 <= length < _MAX_LENGTH:
        raise UsageError(f"the data set has {length} images; 1 to {_MAX_LENGTH - 1} can be sampled")
    if batch_size < 1:
        raise UsageError(f"batch_size is {batch_size}; it must be at least 1")
    if not 0 <= rank < world:
        raise UsageError(f"rank {rank} is not in [0, {world}), the number of processes")
