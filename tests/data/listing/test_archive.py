"""Members of tar archives: joined archives, duplicates, links, sparse members, special files."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from mergevq.data.listing.archive import Place, check_readable, index_archive
from mergevq.data.listing.passed_over import PassedOver
from mergevq.errors import DataError

_BLOCK = 512


def _index(path: Path) -> tuple[dict[str, bytes], str]:
    """The files of an archive with their contents, and what was passed over."""
    passed = PassedOver()
    with open(path, "rb") as file:
        return {name: place.read(file) for name, place in index_archive(file, passed).items()}, str(passed)


def _member(
    name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(content)
    return info


def _write(path: Path, members: Sequence[tuple[tarfile.TarInfo, bytes]]) -> Path:
    with tarfile.open(path, "w") as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return path


def _file(name: str, content: bytes) -> tuple[tarfile.TarInfo, bytes]:
    return _member(name, content), content


def _link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    return _member(name, kind=kind, link=target), b""


def test_joined_archives_are_read_whole(tmp_path: Path) -> None:
    parts = [_write(tmp_path / f"{name}.tar", [_file(name, name.encode())]) for name in "abc"]
    joined = tmp_path / "joined.tar"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    assert _index(joined) == ({"a": b"a", "b": b"b", "c": b"c"}, "")


def test_damage_behind_the_first_archive_is_found(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.tar", [_file("a", b"a")])
    path.write_bytes(path.read_bytes() + b"x" * 2 * _BLOCK)
    with pytest.raises(tarfile.ReadError, match=r"damaged at byte 10240"):
        _index(path)


def test_a_later_member_replaces_an_earlier_one(tmp_path: Path) -> None:
    members = [_file("./a", b"old"), _file("b", b"b"), _file("a", b"new"), _file("a", b"newest")]
    found, passed = _index(_write(tmp_path / "a.tar", members))
    assert found == {"b": b"b", "a": b"newest"}
    assert passed == "2 files that later ones of their names replace (a)"


def test_a_hard_link_is_the_file_that_stood_there(tmp_path: Path) -> None:
    members = [_file("a", b"old"), _link("b", "a", tarfile.LNKTYPE), _file("a", b"new")]
    assert _index(_write(tmp_path / "a.tar", members))[0] == {"a": b"new", "b": b"old"}


@pytest.mark.parametrize(
    ("members", "found"),
    [
        ([_link("d/l", "../c/a")], {"d/l"}),
        ([_link("d/l", "../.store/x")], {"d/l"}),
        ([_link("d/l", "m"), _link("d/m", "../c/a")], {"d/l", "d/m"}),
        ([_link("d", "c")], {"d/a", "d/b/x"}),
        ([_link("d", "c"), _link("e", "d/b"), _link("f", "e/x")], {"d/a", "d/b/x", "e/x", "f"}),
        ([_link("k/d", "../c"), _link("e", "k")], {"k/d/a", "k/d/b/x", "e/d/a", "e/d/b/x"}),
        ([_link("d/l", "c/a", tarfile.LNKTYPE)], {"d/l"}),
        ([_link("c/l", "/c/a")], {"c/l"}),
    ],
)
def test_links_are_followed_in_the_archive(
    tmp_path: Path, members: list[tuple[tarfile.TarInfo, bytes]], found: set[str]
) -> None:
    whole = [_file("c/a", b"content"), _file("c/b/x", b"content"), _file(".store/x", b"content")]
    files, passed = _index(_write(tmp_path / "a.tar", [*members[:1], *whole, *members[1:], *members[:1]]))
    assert set(files) == {"c/a", "c/b/x", *found} and set(files.values()) == {b"content"}
    assert passed == "1 hidden file or folder (.store/x)"


@pytest.mark.parametrize(
    ("link", "said"),
    [
        (_link("d/l", "../nowhere"), "1 link that leads nowhere (d/l)"),
        (_link("d/l", "../../../etc/passwd"), "1 link that leads nowhere (d/l)"),
        (_link("l", "gone", tarfile.LNKTYPE), "1 link that leads nowhere (l)"),
        (_link("c/l", "l"), "1 link in a circle (c/l)"),
        (_link("c/l", "../c"), "1 link in a circle (c/l)"),
        (_link("c/l", ".."), "1 link in a circle (c/l)"),
    ],
)
def test_links_without_an_end_are_counted(
    tmp_path: Path, link: tuple[tarfile.TarInfo, bytes], said: str
) -> None:
    assert _index(_write(tmp_path / "a.tar", [_file("c/a", b"a"), link])) == ({"c/a": b"a"}, said)


def test_fifos_and_devices_are_counted(tmp_path: Path) -> None:
    kinds = (tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE)
    members = [(_member(f"{row}.png", kind=kind), b"") for row, kind in enumerate(kinds)]
    found, passed = _index(_write(tmp_path / "a.tar", [*members, _file("a", b"a")]))
    assert found == {"a": b"a"} and passed == "3 FIFOs, sockets or devices (0.png)"


_PIECES = [(0, 512), (2048, 512), (4096, 100)]
_DATA = b"a" * 512 + b"b" * 512 + b"c" * 100
_SPARSE = b"a" * 512 + bytes(1536) + b"b" * 512 + bytes(1536) + b"c" * 100


def _pax(version: str) -> tuple[tarfile.TarInfo, bytes]:
    """A sparse member as `tar -S --format=pax` writes it, in the format's versions 0.1 and 1.0."""
    numbers = [number for piece in _PIECES for number in piece]
    headers = {"GNU.sparse.name": "sparse.png", "GNU.sparse.numblocks": str(len(_PIECES))}
    content = _DATA
    if version == "0.1":
        headers |= {"GNU.sparse.map": ",".join(map(str, numbers)), "GNU.sparse.size": str(len(_SPARSE))}
    else:
        headers |= {
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.realsize": str(len(_SPARSE)),
        }
        table = "".join(f"{number}\n" for number in (len(_PIECES), *numbers)).encode()
        content = table.ljust(_BLOCK, b"\0") + _DATA
    info = _member("GNUSparseFile.0/sparse.png", content)
    info.pax_headers = headers
    return info, content


def _gnu() -> bytes:
    """A sparse member as `tar -S --format=gnu` writes it."""
    header = bytearray(_member("sparse.png", _DATA, tarfile.GNUTYPE_SPARSE).tobuf(tarfile.GNU_FORMAT))
    table = b"".join(b"%011o\0%011o\0" % piece for piece in _PIECES)
    header[386 : 386 + len(table)] = table
    header[483:495] = b"%011o\0" % len(_SPARSE)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + _DATA.ljust(3 * _BLOCK, b"\0")


@pytest.mark.parametrize("form", ["0.1", "1.0", "gnu"])
def test_sparse_members_have_zeros_in_their_holes(tmp_path: Path, form: str) -> None:
    path = tmp_path / "a.tar"
    if form == "gnu":
        path.write_bytes(_gnu() + _write(tmp_path / "b.tar", [_file("next", b"next")]).read_bytes())
    else:
        _write(path, [_pax(form), _file("next", b"next")])
    assert _index(path)[0] == {"sparse.png": _SPARSE, "next": b"next"}


def test_a_sparse_member_that_is_all_hole_is_zeros(tmp_path: Path) -> None:
    assert Place(0, 5, ()).read(io.BytesIO(b"neighbour")) == bytes(5)


@pytest.mark.parametrize("size", [100, 2**40])
def test_a_sparse_member_that_claims_too_much_is_refused(tmp_path: Path, size: int) -> None:
    info, content = _pax("0.1")
    info.pax_headers["GNU.sparse.size"] = str(size)
    with pytest.raises(tarfile.ReadError, match=r"sparse member sparse\.png claims"):
        _index(_write(tmp_path / "a.tar", [(info, content)]))


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_absolute_and_upward_names_are_as_unpacked(tmp_path: Path, form: int) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=form) as archive:
        for name in ("/x/a.png", "../../x/b.png", "./x/../x/c.png", "x//d.png"):
            archive.addfile(_member(name, b"1"), io.BytesIO(b"1"))
    assert set(_index(path)[0]) == {"x/a.png", "x/b.png", "x/c.png", "x/d.png"}


def test_a_fifo_is_no_shard(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.tar")
    with pytest.raises(DataError, match=r"a\.tar is no regular file"):
        check_readable(tmp_path / "a.tar")
