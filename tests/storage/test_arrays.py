"""Arrays from files of anybody: claims are compared with what is there before memory is taken."""

from __future__ import annotations

import contextlib
import io
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mergevq.storage import arrays
from mergevq.storage.arrays import read_array, read_npz


def member(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def claiming(shape: str, descr: str = "<i4") -> bytes:
    """An .npy of sixteen bytes whose header says something else."""
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + bytes(16)


def archive(path: Path, content: bytes, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr("a.npy", content)
    return path


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.int32).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array(7),
        np.array(["ä", "b\udce4"]),
        np.zeros((0, 4), np.uint16),
        np.array([True, False]),
    ],
)
def test_what_numpy_saves_comes_back(tmp_path: Path, array: np.ndarray) -> None:
    np.savez_compressed(tmp_path / "f.npz", a=array, other=np.array([{}], object))
    found = read_npz(tmp_path / "f.npz", ["a"])["a"]
    assert found.dtype == array.dtype and np.array_equal(found, array)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (claiming("(1000000000000,)"), r"claim shape \(1000000000000,\) and have 16 bytes"),
        (claiming("(4294967296, 4294967296, 4)"), "and have 16 bytes"),
        (claiming("(-4,)"), "claims to hold int32 of shape"),
        (claiming("(4,)", "|O"), "claims to hold object"),
        (claiming("(1,)", "V16"), r"claims to hold \|V16"),
        (claiming("(" * 90), "its header is damaged"),
        (b"\x93NUMPY\x02\x00" + b"\xff" * 4, "its header is damaged"),
        (b"pickled", "its header is damaged"),
        (b"", "its header is damaged"),
    ],
)  # fmt: skip
def test_false_claims_are_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = archive(tmp_path / "f.npz", content)
    tracemalloc.start()
    with pytest.raises(ValueError, match=said):
        read_npz(path, ["a"])
    assert tracemalloc.get_traced_memory()[1] < 10**6
    tracemalloc.stop()


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "_FREE", 2**20)
    path = archive(tmp_path / "f.npz", claiming("(1048576,)")[:128] + bytes(2**22))
    with pytest.raises(ValueError, match=r"its arrays claim 4194432 bytes, and the whole file has \d{4}$"):
        read_npz(path, ["a"])
    monkeypatch.undo()
    assert not read_npz(path, ["a"])["a"].any()


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(tmp_path: Path, method: int) -> None:
    path = archive(tmp_path / "f.npz", member(np.arange(4)), method)
    with pytest.raises(ValueError, match="compressed in another way"):
        read_npz(path, ["a"])


def test_damage_anywhere_in_an_archive_is_a_value_error(tmp_path: Path) -> None:
    """Never another array: the archive has checksums."""
    path, generator = archive(tmp_path / "f.npz", member(np.arange(40))), np.random.default_rng(0)
    whole = path.read_bytes()
    for _ in range(300):
        content = bytearray(whole)
        content[generator.integers(len(whole))] ^= 1 << int(generator.integers(8))
        path.write_bytes(content if generator.integers(4) else content[: generator.integers(len(whole))])
        with contextlib.suppress(ValueError):
            assert np.array_equal(read_npz(path, ["a"])["a"], np.arange(40))


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda whole: whole, ""),
        (lambda whole: whole[:-1], "it has 143 bytes"),
        (lambda whole: whole + b"\0", "it has 145 bytes"),
        (
            lambda whole: whole.replace(b"(4,)", b"(2,)"),
            r"it holds int32 of shape \(2,\), not int32 of \(4,\)",
        ),
        (lambda whole: whole.replace(b"<i4", b"<f4"), "it holds float32"),
        (lambda whole: whole.replace(b"<i4", b"i4)"), "its header is damaged"),
        (lambda whole: b"", "its header is damaged"),
    ],
)
def test_an_array_that_is_known_is_that_or_refused(
    tmp_path: Path, mapped: bool, change: Callable[[bytes], bytes], said: str
) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(change(member(np.arange(4, dtype=np.int32))))
    if not said:
        assert np.array_equal(read_array(path, np.int32, (4,), mapped=mapped), np.arange(4))
        return
    with pytest.raises(ValueError, match=said):
        read_array(path, np.int32, (4,), mapped=mapped)
    with pytest.raises(ValueError, match="No such file"):
        read_array(tmp_path / "missing", np.int32, (4,))
