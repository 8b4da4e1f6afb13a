"""Loaders that never wait in vain: a process that reads and dies, or stalls, ends the loop in one sentence.

PyTorch's own loader waits for ever where a process cannot hand over a batch, for want of shared memory say: the error
is raised in a thread of that process, which goes on without the batch. And it tells of a dead process by an error out
of a signal handler, in whatever line the main thread happens to be.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator, Sequence
from multiprocessing.connection import wait
from traceback import walk_tb
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.data._utils.signal_handling import _remove_worker_pids, _set_worker_pids
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from mergevq.data.lost_readers import lost, not_started, stalled
from mergevq.data.workers import begin
from mergevq.errors import DataError

logger = logging.getLogger(__name__)

GLANCE = 2.0
"""Seconds between looks at processes that give nothing, whether they are alive."""

WORD = 30
"""Looks after which the log says so."""

PATIENCE = 900
"""Looks after which they are given up. Slow storage takes minutes for a batch, never half an hour."""

_LAST_BREATH = 5.0
"""Seconds that a process may take to die after it has been missed."""

T_co = TypeVar("T_co", covariant=True)


class WatchedLoader(DataLoader[T_co]):
    """A `DataLoader` whose processes are watched, and which never draws from the global random state.

    Args:
        dataset: what is read.
        workers: processes that read; 0 reads in this one, and waits for as long as it takes.
        option: what the user calls their number.
        options: further ones of `DataLoader`.
    """

    def __init__(self, dataset: Dataset[T_co], *, workers: int, option: str, **options: Any) -> None:
        super().__init__(
            dataset,
            num_workers=workers,
            worker_init_fn=begin,
            timeout=GLANCE if workers else 0,
            generator=torch.Generator(),  # its own, or the loader would draw from the global one
            **options,
        )
        self.option = option

    def __iter__(self) -> Any:  # PyTorch promises an iterator of its own, whose methods nobody calls
        try:
            batches = super().__iter__()
        except OSError as error:
            _give_up_half_made(error)
            if error.errno == errno.EMFILE:  # not for want of shared memory
                raise
            raise DataError(not_started(error.strerror, self.option)) from error
        return _Watched(batches, self.option) if self.num_workers else batches


class _Watched(Iterator[T_co]):
    """The batches, or why there are no more."""

    def __init__(self, batches: Any, option: str) -> None:
        self._batches = batches
        self._option = option
        # So that PyTorch's signal handler raises nothing: it knows of no process of this loader.
        _remove_worker_pids(id(batches))
        _set_worker_pids(id(batches), ())

    def __next__(self) -> T_co:
        for look in range(1, PATIENCE + 1):
            try:
                batch: T_co = next(self._batches)
                return batch
            except (RuntimeError, OSError, EOFError) as error:
                if not str(error).startswith("DataLoader timed out"):
                    self._explain(error)
                    raise
            # The loader's state is as it was, so that it can be asked again.
            if look % WORD == 0:
                logger.warning(
                    "no batch of data for %.0f s; the processes that read are alive", look * GLANCE
                )
        self._end()
        raise DataError(stalled(PATIENCE * GLANCE, self._option))

    def _explain(self, error: Exception) -> None:
        """Raises DataError where a process is gone; whoever dies may take along a batch that was handed over."""
        processes = self._batches._workers
        if "Original Traceback" not in str(error):  # not an error of the data
            _see_one_die(processes)
        sentence = lost([process.exitcode for process in processes], self._option)
        if sentence is not None:
            self._end()
            raise DataError(sentence) from error

    def _end(self) -> None:
        """Ends the processes, also those that do not when they are asked to, since they wait for storage."""
        self._batches._shutdown_workers()
        for process in self._batches._workers:
            process.kill()


def _give_up_half_made(error: OSError) -> None:
    """Ends an iterator that could not be made; by itself it would complain that it is not whole, after our sentence."""
    for frame, _ in walk_tb(error.__traceback__):
        half_made = frame.f_locals.get("self")
        if isinstance(half_made, _MultiProcessingDataLoaderIter):
            half_made._shutdown = True
            for process in getattr(half_made, "_workers", ()):
                process.kill()


def _see_one_die(processes: Sequence[Any]) -> None:
    """Waits a little for a process that is missed to be gone, so that its exit code is there."""
    gone = wait([process.sentinel for process in processes], timeout=_LAST_BREATH)
    for process in processes:
        if process.sentinel in gone:
            process.join()
