"""What only folders can hold: FIFOs, links into the disk, tar files beside pictures."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from mergevq.data.images.sources import open_source
from mergevq.errors import DataError

Paint = Callable[..., bytes]


@pytest.fixture
def folder(tmp_path: Path, picture: Paint) -> Path:
    for name in ("cat", "dog"):
        (tmp_path / "set" / name).mkdir(parents=True)
        (tmp_path / "set" / name / "1.png").write_bytes(picture(1))
    return tmp_path / "set"


def _said(folder: Path, caplog: pytest.LogCaptureFixture) -> str:
    caplog.set_level("INFO")
    assert len(open_source(str(folder), "all")) == 2
    return caplog.text.rstrip().partition("passed over: ")[2]


def test_a_fifo_or_a_socket_never_blocks(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    os.mkfifo(folder / "cat/p.jpg")
    (folder / "dog/q.jpg").symlink_to(folder / "cat/p.jpg")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(folder)  # the path of a socket may have 108 characters
        listener.bind("s.png")
        os.chdir(here)
    assert _said(folder, caplog).startswith("3 FIFOs, sockets or devices (")


def test_links_that_lead_nowhere_are_counted(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "cat/gone.png").symlink_to("nowhere.png")
    (folder / "cat/self.png").symlink_to("self.png")
    assert _said(folder, caplog).startswith("2 links that lead nowhere (cat/")


def test_links_in_a_circle_are_counted(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "cat/up").symlink_to(folder)
    assert _said(folder, caplog) == "1 link in a circle (cat/up)"


@pytest.mark.parametrize("name", ["s.tar", "S.TAR", "deep/s.tar"])
def test_a_shard_beside_stray_pictures_is_unclear(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"")
    with pytest.raises(
        DataError, match=rf"holds 2 pictures \(first cat/1\.png\) and 1 tar file \(first {name}\)"
    ):
        open_source(str(folder), "train")


def test_a_shard_beside_the_splits_is_a_leftover(
    folder: Path, picture: Paint, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "cat").rename(folder / "train")
    (folder / "dog").rename(folder / "val")
    (folder / "ILSVRC2012_img_train.tar").write_bytes(b"")
    assert _said(folder, caplog) == "1 archive that is not looked into (ILSVRC2012_img_train.tar)"


def test_a_compressed_archive_beside_pictures_is_a_leftover(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "backup.tar.gz").write_bytes(b"")
    assert _said(folder, caplog) == "1 archive that is not looked into (backup.tar.gz)"


def test_a_description_of_the_whole_data_set_is_not_read_for_labels(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open(folder / "cat/1.json", "wb") as file:
        file.write(b'{"info": ')
        file.truncate(2**40)
    assert "1 .json without a class number (cat/1.json)" in _said(folder, caplog)


def test_a_class_that_lost_its_pictures_is_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "empty").mkdir()
    (folder / "owl").mkdir()
    (folder / "owl/1.heic").write_bytes(b"")
    (folder / "cat/notes.txt").write_text("text")
    (folder / "elk/deep").mkdir(parents=True)
    (folder / "elk/deep/1.svg").write_text("text")
    assert "3 folders without a picture (elk/deep)" in _said(folder, caplog)
