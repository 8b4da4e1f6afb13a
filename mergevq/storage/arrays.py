"""NumPy arrays from files of anybody: what a file claims is compared with what it has before memory is taken for it.

Nothing is unpickled. Whatever is wrong is a ValueError that says what.
"""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

_MAGIC = b"\x93NUMPY"
_PLAIN = "biufU"
"""Kinds of numbers and texts; what is made of others may be objects."""
_FREE = 256 * 2**20
"""Bytes that the arrays of an archive may have however small the file is."""
_LONGEST = 80
_RATIO = 250
"""Times the size of the file that they may have beyond that; only those of flat pictures come near it."""


def read_npz(path: Path, names: Collection[str]) -> dict[str, np.ndarray]:
    """Some arrays of an .npz file.

    Args:
        path: of the file.
        names: of the arrays; others in the file are not looked at.

    Raises:
        ValueError: one is missing or damaged, or together they are out of proportion to the file.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(_MAGIC)) == _MAGIC:
                raise ValueError("it is a single array, not an archive of several (.npz)")
            file.seek(0)
            with zipfile.ZipFile(file) as archive:
                members = _members(archive, names)
                _check_proportion(members, os.fstat(file.fileno()).st_size)
                return {name: _member(archive, member) for name, member in members.items()}
    except ValueError:
        raise
    except Exception as error:  # a damaged archive can make the reader raise anything
        raise ValueError(_first_line(error)) from error


def read_array(
    path: Path, dtype: npt.DTypeLike, shape: tuple[int, ...], *, mapped: bool = False
) -> np.ndarray[Any, Any]:
    """An array of an .npy file of which type and shape are known.

    Args:
        path: of the file.
        dtype: that it must have.
        shape: likewise.
        mapped: whether it stays on the disk and is read as it is used.

    Raises:
        ValueError: it has another type, shape or size, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            found, found_shape, fortran = _header(file)
            if (found, found_shape, fortran) != (np.dtype(dtype), shape, False):
                raise ValueError(f"it holds {found} of shape {found_shape}, not {np.dtype(dtype)} of {shape}")
            start, size = file.tell(), os.fstat(file.fileno()).st_size
            if size - start != math.prod(shape) * found.itemsize:
                raise ValueError(f"it has {size} bytes, which are not those of shape {shape}")
            if mapped:
                return np.memmap(file, found, "r", start, shape)
            return np.fromfile(file, found).reshape(shape)
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error


def _members(archive: zipfile.ZipFile, names: Collection[str]) -> dict[str, zipfile.ZipInfo]:
    there = {info.filename: info for info in archive.infolist()}
    missing = [name for name in names if f"{name}.npy" not in there]
    if missing:
        raise ValueError(f"it has no {', '.join(missing)}")
    return {name: there[f"{name}.npy"] for name in names}


def _check_proportion(members: dict[str, zipfile.ZipInfo], size: int) -> None:
    claimed = sum(member.file_size for member in members.values())
    if claimed > max(_FREE, _RATIO * size):
        raise ValueError(f"its arrays claim {claimed} bytes, and the whole file has {size}")
    for name, member in members.items():
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"its {name} are compressed in another way than NumPy's")


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    name = member.filename.removesuffix(".npy")
    with archive.open(member) as stream:
        dtype, shape, fortran = _header(stream)
        start, size = stream.tell(), math.prod(shape) * dtype.itemsize
        if start + size != member.file_size:
            raise ValueError(f"its {name} claim shape {shape} and have {member.file_size - start} bytes")
        content = stream.read()  # to the end, where the checksum is compared
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")


def _header(stream: IO[bytes]) -> tuple[np.dtype[Any], tuple[int, ...], bool]:
    """Type, shape and whether columns come first."""
    try:
        version = np.lib.format.read_magic(stream)
        if version != (1, 0):  # of others the header may have gigabytes
            raise ValueError("it is of an unknown version")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    except Exception as error:  # the header is a text in Python's syntax: damage can be anything
        raise ValueError("its header is damaged") from error
    if dtype.kind not in _PLAIN or any(length < 0 for length in shape):
        raise ValueError(f"it claims to hold {dtype} of shape {shape}")
    return dtype, shape, fortran


def _first_line(error: Exception) -> str:
    told = getattr(error, "strerror", None) or str(error) or type(error).__name__
    line = told.splitlines()[0]
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."  # zipfile quotes what it found
