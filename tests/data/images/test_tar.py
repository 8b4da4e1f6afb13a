"""Tar shards: indexing, labels, splits, patterns and damage."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mergevq.data.images.sources import ImageSource, open_source
from mergevq.data.images.tar import find_shards, index_shard
from mergevq.errors import DataError, UsageError


def _picture(red: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (red, 0, 0)).save(file, "PNG")
    return file.getvalue()


def _shard(path: Path, members: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def _reds(source: ImageSource) -> list[int]:
    return [source.open(i).getpixel((0, 0))[0] for i in range(len(source))]


def _labels(source: ImageSource) -> list[int]:
    return [source.label(i) for i in range(len(source))]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_index_equals_tarfiles(tmp_path: Path, form: int) -> None:
    names = [f"train/dog/{'x' * (140 if form else 60)}{n}.png" for n in range(5)]
    path = _shard(tmp_path / "a.tar", {name: _picture(n) for n, name in enumerate(names)}, form)
    with tarfile.open(path) as archive:
        expected = [(member.name, member.offset_data, member.size) for member in archive]
    assert [(member.key, member.offset, member.size) for member in index_shard(path)] == expected


def test_folders_inside_are_splits_and_classes(tmp_path: Path) -> None:
    members = {"./train/dog/1.png": 1, "./train/cat/2.png": 2, "./test/dog/3.png": 3, "./train/._1.png": 9}
    path = _shard(tmp_path / "a.tar", {name: _picture(red) for name, red in members.items()})
    train, val = open_source(str(path), "train"), open_source(str(path), "val")
    assert train.classes == val.classes == ["cat", "dog"]
    assert _reds(train) == [2, 1] and _labels(train) == [0, 1]
    assert _reds(val) == [3] and val.name(0) == f"{path}:test/dog/3.png"


def test_cls_members_are_the_labels(tmp_path: Path) -> None:
    members: dict[str, bytes] = {}
    for n in range(10):
        members |= {f"dir/{n:04}.png": _picture(n), f"dir/{n:04}.cls": f"{n % 4}\n".encode()}
    path = _shard(tmp_path / "a.tar", members)
    for split in ("train", "val"):
        source = open_source(str(path), split, holdout=0.3)
        assert source.classes == ["0", "1", "2", "3"]
        assert _labels(source) == [red % 4 for red in _reds(source)]


def test_labels_for_some_pictures_only(tmp_path: Path) -> None:
    path = _shard(tmp_path / "a.tar", {"1.png": _picture(1), "1.cls": b"0", "2.png": _picture(2)})
    with pytest.raises(DataError, match=r"2\.png has no \.cls file"):
        open_source(str(path), "train")


@pytest.mark.parametrize("label", ["dog", "-1", "", "4000000000"])
def test_label_that_is_no_class_number(tmp_path: Path, label: str) -> None:
    path = _shard(tmp_path / "a.tar", {"1.png": _picture(1), "1.cls": label.encode()})
    with pytest.raises(DataError, match=rf"1\.cls holds '{label}'"):
        open_source(str(path), "train")


def test_many_shards_keep_every_picture(tmp_path: Path) -> None:
    for shard in range(3):
        _shard(
            tmp_path / f"s-{shard:03}.tar", {f"{shard}{n}.png": _picture(10 * shard + n) for n in range(4)}
        )
    everything = [10 * shard + n for shard in range(3) for n in range(4)]
    for pattern in (
        tmp_path,
        tmp_path / "*.tar",
        tmp_path / "s-{000..002}.tar",
        tmp_path / "s-00{0,1,2}.tar",
    ):
        parts = [_reds(open_source(str(pattern), split, holdout=0.3)) for split in ("train", "val")]
        assert sorted(parts[0] + parts[1]) == everything and parts[1]


@pytest.mark.parametrize("names", [("train/a.tar", "val/a.tar"), ("x-train-000.tar", "x-val-000.tar")])
def test_shards_may_be_the_splits(tmp_path: Path, names: tuple[str, str]) -> None:
    for red, name in enumerate(names):
        _shard(tmp_path / name, {f"dog/{n}.png": _picture(red) for n in range(3)})
    assert _reds(open_source(str(tmp_path), "train")) == [0] * 3
    assert _reds(open_source(str(tmp_path), "val")) == [1] * 3
    assert open_source(str(tmp_path), "val").classes == ["dog"]


def test_missing_shard_is_named(tmp_path: Path) -> None:
    _shard(tmp_path / "s-0.tar", {"1.png": _picture(1)})
    with pytest.raises(UsageError, match=r"no shard .*s-1\.tar"):
        open_source(str(tmp_path / "s-{0..1}.tar"), "train")
    with pytest.raises(UsageError, match="no shard"):
        open_source(str(tmp_path / "none-*.tar"), "train")


def test_braces_nest_and_pad(tmp_path: Path) -> None:
    expected = [tmp_path / f"{a}-{b}.tar" for a in ("08", "09", "10") for b in ("x", "y")]
    for path in expected:
        path.touch()
    assert find_shards(str(tmp_path / "{08..10}-{x,y}.tar")) == expected


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_compressed_shard(tmp_path: Path, name: str) -> None:
    path = _shard(tmp_path / "plain", {"1.png": _picture(1)})
    (tmp_path / name).write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(DataError, match=r"is compressed.*gunzip"):
        open_source(str(tmp_path / name), "train")
    path.unlink()
    with pytest.raises(DataError, match=r"is compressed.*gunzip"):
        open_source(str(tmp_path), "train")


def test_truncation_anywhere_is_found_or_harmless(tmp_path: Path) -> None:
    whole = _shard(tmp_path / "a.tar", {f"{n}.png": _picture(n) for n in range(4)}).read_bytes()
    step = len(whole) and 2 * 512  # header and one block of data a member
    path = tmp_path / "cut.tar"
    for length in [*range(1, 4 * step, 97), *range(512, 4 * step, 512)]:
        path.write_bytes(whole[:length])
        if length % step == 0:
            assert len(index_shard(path)) == length // step
            continue
        # The padding after a picture may be missing: the picture is whole.
        data_end = length // step * step + 512 + len(_picture(0))
        if length >= data_end:
            continue
        with pytest.raises(DataError, match=r"cut\.tar"):
            index_shard(path)


def test_damage_in_the_middle_is_found(tmp_path: Path) -> None:
    path = _shard(tmp_path / "a.tar", {f"{n}.png": _picture(n) for n in range(4)})
    data = bytearray(path.read_bytes())
    data[1024:1536] = np.random.default_rng(0).integers(0, 256, 512, np.uint8).tobytes()
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"a\.tar"):
        index_shard(path)


@pytest.mark.parametrize("content", [b"", b"not a tar file at all" * 100])
def test_no_tar_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.tar"):
        open_source(str(tmp_path / "a.tar"), "train")


def test_shard_without_pictures(tmp_path: Path) -> None:
    path = _shard(tmp_path / "a.tar", {"1.txt": b"text"})
    with pytest.raises(DataError, match=r"no pictures in .*a\.tar"):
        open_source(str(path), "train")
