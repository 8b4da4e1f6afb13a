"""Processes that read and die, stall, or cannot hand over what they have read: one sentence, and no wait for ever."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Callable

import pytest
import torch
from torch.utils.data import Dataset

from mergevq.data import watched
from mergevq.data.watched import WatchedLoader
from mergevq.errors import DataError


class Odd:
    """Cannot be handed over: what pickles it raises."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __reduce__(self) -> tuple[object, ...]:
        raise self.error


class Numbers(Dataset[object]):
    """Its third item does something in the process that reads."""

    def __init__(self, happens: Callable[[], object]) -> None:
        self.happens = happens

    def __getitem__(self, index: int) -> object:
        return self.happens() if index == 3 else torch.tensor(index)

    def __len__(self) -> int:
        return 8


def loader(happens: Callable[[], object], workers: int = 2) -> WatchedLoader[object]:
    return WatchedLoader(Numbers(happens), workers=workers, option="--data.workers", batch_size=None)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks several times a second, and PyTorch waits no longer for a process that is to end."""
    monkeypatch.setattr(watched, "GLANCE", 0.1)
    monkeypatch.setattr(watched, "WORD", 2)
    monkeypatch.setattr(watched, "PATIENCE", 1000)
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.2)


NO_ROOM = "unable to allocate shared memory(shm) for file </torch_1_2_3>: No space left on device (28)"


@pytest.mark.parametrize(
    ("happens", "said"),
    [
        (lambda: Odd(RuntimeError(NO_ROOM)), "found no room for a batch in /dev/shm"),
        (lambda: Odd(OSError(errno.EMFILE, "Too many open files")), "too many files open: raise the limit"),
        (lambda: Odd(ValueError("what is that")), "ended with code 1"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "ended by SIGKILL, as by a system that runs out"),
        (lambda: os.kill(os.getpid(), signal.SIGBUS), "found no room for a batch in /dev/shm"),
        (lambda: os._exit(7), "ended with code 7"),
    ],
    ids=["no room", "no descriptor", "unforeseen", "killed", "bus error", "ended"],
)  # fmt: skip
def test_a_reader_that_gives_nothing_ends_the_loop(happens, said):
    with pytest.raises(DataError, match=said) as caught:
        for _ in loader(happens):
            pass
    assert "enlarge /dev/shm or --data.workers 0" in str(caught.value)


def test_readers_that_stall_are_given_up(monkeypatch):
    monkeypatch.setattr(watched, "PATIENCE", 2)
    with pytest.raises(
        DataError, match=r"no batch came from the processes that read data for .* --data.workers 0"
    ):
        list(loader(lambda: time.sleep(600)))


def test_outside_the_main_thread_too():
    """Where no signal handler tells of the dead."""
    said: list[str] = []

    def read() -> None:
        try:
            list(loader(lambda: os.kill(os.getpid(), signal.SIGKILL)))
        except DataError as error:
            said.append(str(error))

    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
    assert len(said) == 1 and "a process that reads data" in said[0]


def test_slow_storage_is_waited_for(caplog, monkeypatch):
    with caplog.at_level("WARNING", "mergevq"):
        found = list(loader(lambda: time.sleep(0.5) or torch.tensor(3)))
    assert [int(number) for number in found] == [*range(8)]
    assert "no batch of data for" in caplog.text


def test_errors_of_the_data_stay_what_they_are():
    def fail() -> None:
        raise DataError("the third is broken")

    with pytest.raises(DataError, match="the third is broken"):
        list(loader(fail))


def test_processes_that_cannot_be_started(monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("multiprocessing.synchronize.Lock.__init__", full)
    with pytest.raises(DataError, match=r"cannot be started \(No space left on device\).* --data.workers 0"):
        iter(loader(lambda: None))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_batches_are_those_of_pytorch(workers):
    assert [int(number) for number in loader(lambda: torch.tensor(3), workers)] == [*range(8)]


AFTER_THREADS = """
import torch
from mergevq.data.images.loader import DataConfig, eval_loader, train_loader
torch.set_num_threads(2)
matrix = torch.randn(600, 600)
(matrix @ matrix).mul(2).sum()
config = DataConfig(path="builtin:photos", workers=2)
train = train_loader(config, size=256, batch_size=16, seed=0, steps=2, view_size=224)
print(sum(len(batch.images) for loader in (train, eval_loader(config, size=256, batch_size=16)) for batch in loader))
"""


def test_readers_that_are_forked_after_two_threads_were_used_do_not_hang(run_python):
    """Such a process hangs in the next operation of two threads; a reader has one."""
    result = run_python("-c", AFTER_THREADS, timeout=120)
    assert result.returncode == 0 and int(result.stdout) > 32, result.stderr
