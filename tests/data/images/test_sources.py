"""Paths to pictures: folders, patterns, and paths that lead nowhere."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
from PIL import Image

from mergevq.data.images.sources import open_source
from mergevq.errors import DataError, UsageError


def _paint(root: Path, *keys: str) -> None:
    for number, key in enumerate(keys):
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6), (number, 0, 0)).save(root / key)


def test_imagenet_layout(tmp_path: Path) -> None:
    _paint(tmp_path, "train/dog/a.png", "train/cat/b.PNG", "train/cat/more/c.png", "val/dog/d.png")
    (tmp_path / "train/dog/notes.txt").write_text("no picture")
    (tmp_path / "train/dog/._a.png").write_text("no picture either")
    train, val = open_source(str(tmp_path), "train"), open_source(str(tmp_path), "val")
    assert train.classes == val.classes == ["cat", "dog"]
    assert [Path(train.name(i)).name for i in range(len(train))] == ["b.PNG", "c.png", "a.png"]
    assert [train.label(i) for i in range(len(train))] == [0, 0, 1]
    assert [train.open(i).getpixel((0, 0))[0] for i in range(len(train))] == [1, 2, 0]
    assert len(val) == 1 and val.label(0) == 1 and val.name(0) == str(tmp_path / "val/dog/d.png")


@pytest.mark.parametrize("extension", ["jpg", "JPEG", "png", "webp", "bmp", "tif", "TIFF"])
def test_extensions(tmp_path: Path, extension: str) -> None:
    _paint(tmp_path, f"a.{extension}", f"b.{extension}")
    assert len(open_source(str(tmp_path), "train")) == len(open_source(str(tmp_path), "val")) == 1


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    _paint(tmp_path, "store/a.png", "store/b.png", "data/own/c.png")
    (tmp_path / "data/linked").symlink_to(tmp_path / "store")
    (tmp_path / "data/own/up").symlink_to(tmp_path / "data")
    source = open_source(str(tmp_path / "data"), "train", holdout=0.01)
    assert source.classes == ["linked", "own"] and len(source) == 2


def test_sources_travel_to_workers(tmp_path: Path) -> None:
    _paint(tmp_path, "a.png", "b.png", "ü.png")
    source = open_source(str(tmp_path), "train", holdout=0.01)
    copy = pickle.loads(pickle.dumps(source))
    assert [copy.name(i) for i in range(len(copy))] == [source.name(i) for i in range(len(source))]
    assert copy.open(0).size == (8, 6)


def test_missing_path() -> None:
    with pytest.raises(UsageError, match="/nowhere/at/all does not exist"):
        open_source("/nowhere/at/all", "train")
    with pytest.raises(UsageError, match=r"/nowhere/a\.tar does not exist"):
        open_source("/nowhere/a.tar", "train")


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no pictures: looked for \.jpg .*found no files"):
        open_source(str(tmp_path), "train")


def test_folder_of_text_files(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text("text")
    (tmp_path / "README").write_text("text")
    with pytest.raises(
        DataError, match=r"found 4 files that are no pictures \(3 x \.txt, 1 x no extension\)"
    ):
        open_source(str(tmp_path), "val")


def test_single_file_is_no_folder(tmp_path: Path) -> None:
    _paint(tmp_path, "a.png")
    with pytest.raises(UsageError, match="is a single file"):
        open_source(str(tmp_path / "a.png"), "train")


def test_a_fifo_is_neither(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p.jpg")
    with pytest.raises(UsageError, match=r"p\.jpg is a FIFO, a socket or a device; give a folder"):
        open_source(str(tmp_path / "p.jpg"), "train")


def test_unknown_builtin_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="'photo'; did you mean 'photos'"):
        open_source("builtin:photo", "train")
