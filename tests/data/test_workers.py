"""Processes that read data: signals meant for the run do not end them, the run's own word does."""

from __future__ import annotations

import gc
import os
import signal
import sys

import pytest

from mergevq.data.images.loader import DataConfig, eval_loader, train_loader

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux says who sent a signal")


@pytest.fixture
def readers():
    """An iterator over batches, and the two processes that read for it."""
    batches = iter(train_loader(DataConfig(workers=2), size=8, batch_size=1, seed=0))
    next(batches)
    return batches, list(batches._batches._workers)


def send(number, to):
    """From another process, as a service manager does."""
    pid = os.fork()
    if pid == 0:
        for process in to:
            os.kill(process.pid, number)
        os._exit(0)
    os.waitpid(pid, 0)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_signals_for_all_do_not_end_a_reader(readers, number):
    batches, children = readers
    send(number, children)
    for _ in range(12):  # more than wait in its queue
        next(batches)
    assert all(child.is_alive() for child in children)


def test_the_run_ends_its_readers(readers):
    children = readers[1]
    for child in children:
        child.terminate()
        child.join(5)
        assert child.exitcode == 0


def test_readers_end_with_their_loader():
    loader = eval_loader(DataConfig(workers=2), size=8, batch_size=4)
    batches = iter(loader)
    assert len(list(batches)) > 0
    children = list(batches._batches._workers)
    del batches, loader
    gc.collect()
    for child in children:
        child.join(5)
        assert child.exitcode == 0
