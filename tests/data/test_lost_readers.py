"""What is said of processes that read and are gone."""

from __future__ import annotations

import errno
import signal

import pytest

from mergevq.data import lost_readers


@pytest.mark.parametrize(
    ("codes", "said"),
    [
        ([None, errno.ENOSPC], "found no room for a batch in /dev/shm"),
        ([-signal.SIGBUS], "found no room for a batch in /dev/shm"),
        ([0, -signal.SIGKILL], "was ended by SIGKILL, as by a system that runs out of memory: take fewer"),
        ([-signal.SIGSEGV], "was ended by SIGSEGV: take fewer"),
        ([errno.EMFILE], "too many files open: raise the limit with `ulimit -n`"),
        ([7], "ended with code 7"),
    ],
)
def test_a_code_becomes_a_sentence_with_the_way_around(codes, said):
    sentence = lost_readers.lost(codes, "--workers")
    assert said in sentence and sentence.endswith("enlarge /dev/shm or --workers 0")


def test_who_lives_or_has_done_its_work_is_not_lost():
    assert lost_readers.lost([None, 0], "--workers") is None


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("unable to allocate shared memory(shm) for file </torch_1_2>: No space left on device (28)", True),
        ("unable to write to file </torch_1_2>: No space left on device (28)", True),
        ("unable to mmap 5 bytes from file <weights.bin>: Cannot allocate memory (12)", False),
        ("The size of tensor a (3) must match", False),
    ],
)
def test_which_errors_of_pytorch_tell_of_shared_memory(text, known):
    assert (lost_readers.found_no_room(text, "--workers") is not None) == known


def test_a_system_without_shared_memory(monkeypatch):
    monkeypatch.setattr(lost_readers, "SHARED", "/nowhere")
    assert lost_readers.lost([errno.ENOSPC], "--workers").endswith(
        "in /nowhere: enlarge /nowhere or --workers 0"
    )
