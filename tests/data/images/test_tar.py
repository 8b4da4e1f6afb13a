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
from mergevq.data.images.tar import Shard, find_shards, index_shards
from mergevq.data.listing.passed_over import PassedOver
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


def _index(path: Path) -> Shard:
    return index_shards([path], path.parent, PassedOver())[0]


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
    assert [
        (key, place.offset, place.size)
        for key, place in zip(_index(path).keys, _index(path).places, strict=True)
    ] == expected


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
    with pytest.raises(DataError, match=r"2\.png has no class number in a \.cls or"):
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
            assert len(_index(path).keys) == length // step
            continue
        # The padding after a picture may be missing: the picture is whole.
        data_end = length // step * step + 512 + len(_picture(0))
        if length >= data_end:
            continue
        with pytest.raises(DataError, match=r"cut\.tar"):
            _index(path)


def test_damage_in_the_middle_is_found(tmp_path: Path) -> None:
    path = _shard(tmp_path / "a.tar", {f"{n}.png": _picture(n) for n in range(4)})
    data = bytearray(path.read_bytes())
    data[1024:1536] = np.random.default_rng(0).integers(0, 256, 512, np.uint8).tobytes()
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"a\.tar"):
        _index(path)


def test_a_sparse_header_that_tarfile_stumbles_over(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a.png")
    info.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[386:410] = b"0" * 11 + b"\0" * 13
    header[482] = 1
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "a.tar").write_bytes(bytes(header) + b"7" * 100)
    with pytest.raises(DataError, match=r"cannot read the shard .*a\.tar: "):
        open_source(str(tmp_path / "a.tar"), "train")


@pytest.mark.parametrize("content", [b"", b"not a tar file at all" * 100])
def test_no_tar_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.tar"):
        open_source(str(tmp_path / "a.tar"), "train")


def test_shard_without_pictures(tmp_path: Path) -> None:
    path = _shard(tmp_path / "a.tar", {"1.txt": b"text"})
    with pytest.raises(DataError, match=r"no pictures in .*a\.tar"):
        open_source(str(path), "train")


def test_a_shard_named_after_a_split_may_hold_its_folder(tmp_path: Path) -> None:
    for red, name in enumerate(("train", "val")):
        _shard(
            tmp_path / f"x-{name}-0.tar", {f"{name}/{kind}/1.png": _picture(red) for kind in ("cat", "dog")}
        )
    source = open_source(str(tmp_path), "train")
    assert source.classes == ["cat", "dog"] and _reds(source) == [0, 0] and _labels(source) == [0, 1]


@pytest.mark.parametrize(
    ("name", "member", "message"),
    [
        ("x-train-0.tar", "val/1.png", r"named as a shard of train and holds val/1\.png"),
        ("train-val-0.tar", "1.png", r"train-val-0\.tar has the words train and val; rename it"),
    ],
)
def test_a_shard_that_contradicts_itself(tmp_path: Path, name: str, member: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_source(str(_shard(tmp_path / name, {member: _picture(1)})), "train")


@pytest.mark.parametrize(
    "names", [("Train-0.TAR", "Val-0.tar"), ("training_0.tar", "dev_0.tar"), ("TRAIN/0.tar", "eval/0.tar")]
)
def test_names_of_splits_of_shards(tmp_path: Path, names: tuple[str, str]) -> None:
    for red, name in enumerate(names):
        _shard(tmp_path / name, {"dog/1.png": _picture(red)})
    assert [_reds(open_source(str(tmp_path), split)) for split in ("train", "val")] == [[0], [1]]


def test_a_tar_file_of_tar_files_says_so(tmp_path: Path) -> None:
    inner = _shard(tmp_path / "n01.tar", {"1.png": _picture(1)}).read_bytes()
    path = _shard(tmp_path / "train.tar", {"n01.tar": inner, "n02.tar": inner})
    with pytest.raises(DataError, match=r"found 2 archives that are not looked into \(train\.tar:n01\.tar\)"):
        open_source(str(path), "train")


@pytest.mark.parametrize(
    ("names", "reds"),
    [
        (("x-train-0", "extra"), [0, 1]),
        (("x-train-0", "x-val-0", "extra"), [0, 1]),
        (("train-0", "train-1"), [0, 1]),
    ],
)
def test_the_name_of_a_shard_is_no_class(tmp_path: Path, names: tuple[str, ...], reds: list[int]) -> None:
    for red, name in enumerate(names):
        _shard(tmp_path / f"{name}.tar", {f"{kind}/{red}.png": _picture(red) for kind in ("cat", "dog")})
    source = open_source(str(tmp_path), "all")
    assert source.classes == ["cat", "dog"] and sorted(set(_reds(source))) == reds


def test_labels_in_some_shards_only(tmp_path: Path) -> None:
    _shard(tmp_path / "0.tar", {"1.png": _picture(1), "1.cls": b"0"})
    _shard(tmp_path / "1.tar", {"2.png": _picture(2)})
    with pytest.raises(DataError, match=r"1\.tar:2\.png has no class number"):
        open_source(str(tmp_path), "train")


def test_sparse_pictures_are_read(tmp_path: Path) -> None:
    content = _picture(5)
    cut = len(content) // 2
    info = tarfile.TarInfo("GNUSparseFile.0/a.png")
    info.size = len(content)
    info.pax_headers = {
        "GNU.sparse.name": "a.png",
        "GNU.sparse.size": str(len(content)),
        "GNU.sparse.map": f"0,{cut},{cut},{len(content) - cut}",
    }
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.addfile(info, io.BytesIO(content))
    assert _reds(open_source(str(tmp_path / "a.tar"), "all")) == [5]


def test_patterns_that_count_down_or_exist(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\{3\.\.1\} counts down; write \{1\.\.3\}"):
        find_shards(str(tmp_path / "s-{3..1}.tar"))
    exists = _shard(tmp_path / "p{1}" / "s.tar", {"1.png": _picture(1)})
    assert find_shards(str(exists)) == [exists]


@pytest.mark.parametrize(
    "pattern", ["s-{0..1000000000000}.tar", "{a,b}" * 40 + ".tar", "s{" + "9" * 5000 + "..1}.tar"]
)
def test_patterns_of_endlessly_many_shards_end_at_once(pattern, tmp_path):
    with pytest.raises(UsageError, match=r"there is no shard|stands for more than 1000000 names") as raised:
        find_shards(str(tmp_path / pattern))
    assert len(str(raised.value)) < 400
