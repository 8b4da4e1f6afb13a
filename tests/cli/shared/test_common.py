"""What is checked before the work: whether its result can be written, without touching what is there."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from mergevq.cli.shared.common import check_writable
from mergevq.errors import OutputError


def test_what_is_no_regular_file_is_left_as_it_is(tmp_path: Path) -> None:
    """A FIFO without a reader is not waited for, nor is a reader told that all has ended."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(tmp_path / "made" / "target")
    (tmp_path / "out").symlink_to("/proc/self/fd/1")
    for name in ("fifo", "link", "out"):
        check_writable(tmp_path / name)
    assert stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode)
    assert not (tmp_path / "made" / "target").exists() and (tmp_path / "made").is_dir()


@pytest.mark.parametrize(
    ("name", "folder", "said"),
    [
        ("file", True, "file is a file; give the name of a folder"),
        ("fifo", True, "fifo is a file; give the name of a folder"),
        ("folder", False, "folder is a folder; give the name of a file"),
        ("file/below", False, "cannot write .*below: "),
        ("file/below", True, "cannot write .*below: "),
        ("loop", False, "cannot write .*loop: Too many levels of symbolic links"),
    ],
)
def test_what_cannot_be_written_is_said(tmp_path: Path, name: str, folder: bool, said: str) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(OutputError, match=said):
        check_writable(tmp_path / name, folder)
