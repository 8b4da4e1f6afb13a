"""Hidden names tell whether their owner still runs; what ended processes left goes, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mergevq.storage import leftovers
from mergevq.storage.leftovers import abandoned, clear, hidden


@pytest.fixture
def ended() -> int:
    """The number of a process that is there no more."""
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    return child


def of(pid: int, path: Path, suffix: str = ".part") -> Path:
    """A hidden name as another process of this machine makes it."""
    own = hidden(path, suffix)
    return own.with_name(own.name.replace(f"-{os.getpid()}-", f"-{pid}-"))


def test_files_and_folders_of_ended_processes_go(tmp_path: Path, ended: int) -> None:
    of(ended, tmp_path / "last.ckpt").write_bytes(b"half")
    folder = of(ended, tmp_path / "shard-00000")
    folder.mkdir()
    (folder / "indices.npy").touch()
    clear(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_may_still_be_written_stays(tmp_path: Path, ended: int) -> None:
    own, parent = os.getpid(), os.getppid()
    running = hidden(tmp_path / "b").name.replace(
        f"-{own}-{leftovers._started(own)}-", f"-{parent}-{leftovers._started(parent)}-"
    )
    complete = of(ended, tmp_path / "c", ".earlier").name  # it is kept to be put back
    others = [".config.json.original", ".last.ckpt.aaaaaaaa", "last.ckpt.part", ".a.part"]
    names = {hidden(tmp_path / "a").name, running, complete, *others}
    for name in names:
        (tmp_path / name).touch()
    of(parent, tmp_path / "d").touch()  # its number belongs to a process that started at another time
    clear(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == names


def test_another_machines_go_after_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(leftovers, "_host", lambda: "0" * 8)
        new, old = hidden(tmp_path / "new"), hidden(tmp_path / "old")
    for path in (new, old):
        path.touch()
    os.utime(old, (0, 0))
    clear(tmp_path)
    assert list(tmp_path.iterdir()) == [new]


def test_only_of_one_name(tmp_path: Path, ended: int) -> None:
    for name in ("out", "out.2", "other"):
        of(ended, tmp_path / name, ".earlier").mkdir()
    (found,) = abandoned(tmp_path, ".earlier", "out")
    assert found.name.startswith(".out.")
    assert list(abandoned(tmp_path / "missing")) == []
