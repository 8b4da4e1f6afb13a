"""Two writers of one folder: the second is told who the first is, whatever became of earlier ones."""

from __future__ import annotations

import errno
import os
import re
import signal
import socket

import pytest

from mergevq.errors import OutputError, UsageError
from mergevq.storage import locks
from mergevq.storage.locks import LOCK, holder, only_writer

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


@pytest.fixture
def elsewhere():
    """Runs something in a forked process and returns its exit code."""

    def run(action):
        pid = os.fork()
        if pid == 0:
            try:
                action()
            except UsageError:
                os._exit(2)
            except BaseException:
                os._exit(9)
            os._exit(0)
        return os.waitpid(pid, 0)[1]

    return run


def enter(folder):
    with only_writer(folder):
        pass


def test_second_writer_learns_who_the_first_is(tmp_path, elsewhere):
    with only_writer(tmp_path / "run"):
        with pytest.raises(UsageError) as caught:
            enter(tmp_path / "run")
        assert os.waitstatus_to_exitcode(elsewhere(lambda: enter(tmp_path / "run"))) == 2
    said = str(caught.value)
    assert caught.value.exit_code == 2
    assert f"process {os.getpid()} on {socket.gethostname()}, since 20" in said and "--out" in said
    assert re.search(r"since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d, writes to it", said)


def test_lock_and_its_file_end_together(tmp_path, elsewhere):
    with only_writer(tmp_path):
        assert (tmp_path / LOCK).exists() and holder(tmp_path / LOCK)
    assert not list(tmp_path.iterdir()) and holder(tmp_path / LOCK) is None
    enter(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert elsewhere(lambda: enter(tmp_path)) == 0


@pytest.mark.parametrize(
    "left", [b'{"pid": 1, "host": "gone", "since": "2020-01-01 00:00:00"}', b"", b"\xff"]
)
def test_stale_file_stops_nobody(tmp_path, left):
    (tmp_path / LOCK).write_bytes(left)
    with only_writer(tmp_path), pytest.raises(UsageError, match=f"process {os.getpid()} on"):
        enter(tmp_path)


def test_lock_dies_with_a_killed_holder(tmp_path, elsewhere):
    def killed():
        with only_writer(tmp_path):
            os.kill(os.getpid(), signal.SIGKILL)

    assert os.waitstatus_to_exitcode(elsewhere(killed)) == -signal.SIGKILL
    assert (tmp_path / LOCK).exists()
    enter(tmp_path)


def test_forked_reader_does_not_keep_the_lock(tmp_path, elsewhere):
    """As a data loader's process does, which outlives a killed run by seconds."""
    wait, end = os.pipe()

    def killed():
        with only_writer(tmp_path):
            if os.fork() == 0:
                os.close(end)
                os.read(wait, 1)  # until the test is over
                os._exit(0)
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        assert os.waitstatus_to_exitcode(elsewhere(killed)) == -signal.SIGKILL
        enter(tmp_path)
    finally:
        os.close(end)
        os.close(wait)


def test_forked_reader_does_not_release_the_lock(tmp_path, elsewhere):
    with only_writer(tmp_path):
        assert elsewhere(lambda: None) == 0
        with pytest.raises(UsageError):
            enter(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_no_locks_is_a_sentence_and_not_an_end(tmp_path, caplog, monkeypatch, number):
    def refuse(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(locks, "_lock", refuse)
    with only_writer(tmp_path):
        assert holder(tmp_path / LOCK) is None
    assert "has no locks" in caplog.text and os.strerror(number) in caplog.text


def test_file_removed_between_opening_and_locking(tmp_path, monkeypatch):
    """Its holder ended at that moment: the lock of a file that is gone would keep nobody out."""
    lock, removed = locks._lock, []

    def late(descriptor):
        lock(descriptor)
        if not removed:
            removed.append((tmp_path / LOCK).unlink())

    monkeypatch.setattr(locks, "_lock", late)
    with only_writer(tmp_path):
        assert removed and holder(tmp_path / LOCK)


def test_unwritable_folder_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write to .*file/run: "):
        enter(tmp_path / "file" / "run")
