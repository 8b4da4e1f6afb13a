"""What is written: whole or not at all, through links and into devices, and nothing of a killed process stays."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from mergevq.errors import OutputError
from mergevq.storage import files
from mergevq.storage.files import atomic, is_regular, write_atomically


def write(path: Path, text: str = "new") -> None:
    write_atomically(path, lambda temporary: temporary.write_text(text))


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_and_its_target_is_written(tmp_path: Path, there: bool) -> None:
    target, link = tmp_path / "elsewhere" / "a.json", tmp_path / "links" / "b.json"
    target.parent.mkdir()
    link.parent.mkdir()
    if there:
        target.write_text("old")
    link.symlink_to(Path("..") / "elsewhere" / "a.json")
    write(link)
    assert link.is_symlink() and target.read_text() == "new"
    assert [path.name for path in target.parent.iterdir()] == ["a.json"]


def test_a_link_that_leads_to_itself_is_refused_and_stays(tmp_path: Path) -> None:
    link = tmp_path / "a"
    link.symlink_to(link)
    with pytest.raises(OutputError, match=r"cannot write .*symbolic links"):
        write(link)
    assert link.is_symlink()


def test_a_fifo_is_written_to_and_stays(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    found: list[str] = []
    reader = threading.Thread(target=lambda: found.append(fifo.read_text()), daemon=True)
    reader.start()
    write(fifo)
    reader.join(10)
    assert found == ["new"] and stat.S_ISFIFO(fifo.stat().st_mode)
    assert list(tmp_path.iterdir()) == [fifo]


@pytest.fixture
def node(tmp_path: Path) -> Callable[[str, int], Path]:
    """Makes memory devices: those of /dev would not survive the fault that is looked for."""
    if os.getuid():
        pytest.skip("only the superuser makes devices")

    def made(name: str, minor: int) -> Path:
        os.mknod(tmp_path / name, 0o666 | stat.S_IFCHR, os.makedev(1, minor))
        return tmp_path / name

    return made


def test_a_device_is_written_to_and_stays(tmp_path: Path, node: Callable[[str, int], Path]) -> None:
    null, link = node("null", 3), tmp_path / "link"
    link.symlink_to(null)
    for path in (null, link):
        write(path)
        assert stat.S_ISCHR(null.stat().st_mode) and link.is_symlink()


def test_a_device_that_refuses_is_one_sentence(node: Callable[[str, int], Path]) -> None:
    full = node("full", 7)
    with pytest.raises(OutputError, match=r"cannot write .*full: No space left on device"):
        write(full)
    assert stat.S_ISCHR(full.stat().st_mode)


@pytest.mark.parametrize("name", ["stdout", "out.txt"])
def test_standard_output_is_never_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    """Not even where the shell leads it to a regular file, in which printed lines stand too."""
    monkeypatch.chdir(tmp_path)
    Path("stdout").symlink_to("/proc/self/fd/1")  # as /dev/stdout is
    with capfd.disabled():
        before, into = os.dup(1), os.open("out.txt", os.O_CREAT | os.O_WRONLY)
        os.dup2(into, 1)
        try:
            os.write(1, b"a line\n")
            assert not is_regular(Path(name))
            write(Path(name), "the result\n")
            os.write(1, b"another\n")
        finally:
            os.dup2(before, 1)
            os.close(before)
            os.close(into)
    assert Path("stdout").is_symlink()
    assert (tmp_path / "out.txt").read_text() == "a line\nthe result\nanother\n"


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_modes_are_those_of_the_umask_or_of_the_file_before(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write(tmp_path / "new")
        (tmp_path / "old").touch()
        (tmp_path / "old").chmod(0o640)
        write(tmp_path / "old")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o666 & ~umask
    assert stat.S_IMODE((tmp_path / "old").stat().st_mode) == 0o640


def test_a_long_name_is_written(tmp_path: Path) -> None:
    for path in (tmp_path / ("a" * 255), tmp_path / ("ä" * 127)):
        write(path)
        assert path.read_text() == "new"
    assert len(list(tmp_path.iterdir())) == 2


KILLED = """
import os, signal, sys
from pathlib import Path
from mergevq.storage.files import write_atomically

def write(temporary):
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)

write_atomically(Path(sys.argv[1]), write)
"""


def test_what_a_killed_process_left_goes_with_the_next_write(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    environment = {**os.environ, "PYTHONPATH": str(Path(files.__file__).parents[1])}
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".last.ckpt.") and left.read_text() == "half"
    write(path)
    assert list(tmp_path.iterdir()) == [path]


def test_two_pairs_are_never_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread stands between its two renames while another writes both files."""
    pair = (tmp_path / "a", tmp_path / "b")

    def both(text: str) -> None:
        with atomic(*pair) as temporaries:
            for temporary in temporaries:
                temporary.write_text(text)

    first, second = threading.Event(), threading.Thread(target=both, args=["second"])
    rename = Path.replace

    def slow(path: Path, target: Path) -> Path:
        found = rename(path, target)
        if not first.is_set():
            first.set()
            second.start()
            second.join(0.2)
        return found

    monkeypatch.setattr(Path, "replace", slow)
    both("first")
    second.join()
    assert [path.read_text() for path in pair] == ["second", "second"]
