"""Tokens of named pictures in one compressed .npz file, as arrays: for other programs and for `mergevq decode`.

Arrays: indices (N, K), source (N, L), sizes (N, K), grid (2,), names (N,), stride and the fingerprint of the
tokenizer that made them, without which codes mean nothing. Nothing in the file is pickled, and a file from
elsewhere is checked before any of it is used. Needs no PyTorch; `file` has the same with tensors.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mergevq.errors import DataError, UsageError
from mergevq.storage.arrays import read_npz
from mergevq.storage.files import write_atomically
from mergevq.tokens import TokenArrays, check_maker

FORMAT = "mergevq-tokens 1"
_FIELDS = ("format", "indices", "source", "sizes", "grid", "names", "stride", "tokenizer")


@dataclass(frozen=True, slots=True)
class TokenArrayFile:
    """What a token file holds."""

    tokens: TokenArrays
    names: list[str]
    """What the pictures were called, one for each row."""
    stride: int
    """Pixels a side for each latent position."""
    tokenizer: str
    """The fingerprint of the tokenizer."""

    def check_maker(self, fingerprint: str, bits: int) -> None:
        """Makes sure that a tokenizer can decode this.

        Args:
            fingerprint: of that tokenizer.
            bits: of its codes.

        Raises:
            CheckpointError: the tokens were made by another tokenizer.
            DataError: a code is outside its vocabulary.
        """
        check_maker(fingerprint, self.tokenizer)
        if int(self.tokens.indices.max()) >= 2**bits:
            raise DataError(f"the tokens hold a code outside the tokenizer's {2**bits}; the file was changed")


def save_token_arrays(path: Path, file: TokenArrayFile) -> None:
    """Writes a token file, whole or not at all.

    Raises:
        OutputError: it cannot be written; an older file is unchanged.
    """
    tokens = file.tokens
    arrays = {
        "format": np.array(FORMAT),
        "indices": tokens.indices.astype(np.int32),
        "source": tokens.source.astype(np.int32),
        "sizes": tokens.sizes.astype(np.int32),
        "grid": np.array(tokens.grid, np.int32),
        "names": np.array(file.names),
        "stride": np.array(file.stride, np.int32),
        "tokenizer": np.array(file.tokenizer),
    }

    def write(temporary: Path) -> None:
        with temporary.open("wb") as stream:  # given a name, numpy would append .npz to it
            np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]  # the stub takes a name for an option

    write_atomically(path, write)


def load_token_arrays(path: Path) -> TokenArrayFile:
    """Reads a token file.

    Raises:
        UsageError: there is no such file.
        DataError: it is truncated, no token file, or its arrays contradict one another.
    """
    arrays = _arrays(path)
    try:
        file = _checked(arrays)
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(f"{path} is not a sound token file: {error}") from error
    return file


def _arrays(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise UsageError(f"there is no token file {path}")
    try:
        return read_npz(path, _FIELDS)
    except ValueError as error:
        raise DataError(
            f"{path} cannot be read as a token file, which `mergevq encode` writes: {error}"
        ) from error


def _checked(arrays: dict[str, np.ndarray]) -> TokenArrayFile:
    """The file of these arrays, after everything that can be checked without its tokenizer."""
    if str(arrays["format"]) != FORMAT:
        raise ValueError(f"its format is {str(arrays['format'])[:40]!r}, not {FORMAT!r}")
    indices, source, sizes = (_matrix(name, arrays[name]) for name in ("indices", "source", "sizes"))
    height, width = (int(side) for side in _integers("grid", arrays["grid"], (2,)))
    rows, kept = indices.shape
    names = _names(arrays["names"], rows)
    if height < 1 or width < 1 or source.shape != (rows, height * width):
        raise ValueError(
            f"its source is {tuple(source.shape)} for {rows} pictures on a {height} x {width} grid"
        )
    if not (kept and rows) or indices.min() < 0:
        raise ValueError("it holds no tokens, or negative ones")
    if source.min() < 0 or source.max() >= kept:
        raise ValueError(f"its source points outside the {kept} tokens")
    counted = np.zeros((rows, kept), np.int64)
    np.add.at(counted, (np.arange(rows)[:, None], source), 1)
    if not counted.all() or not np.array_equal(counted, sizes):
        raise ValueError("its sizes are not those of its source")
    tokens = TokenArrays(indices, source, sizes, (height, width))
    stride = int(_integers("stride", arrays["stride"], ()))
    if stride < 1:
        raise ValueError(f"its stride is {stride}")
    return TokenArrayFile(tokens, names, stride, str(arrays["tokenizer"]))


def _names(array: np.ndarray, rows: int) -> list[str]:
    if array.shape != (rows,) or array.dtype.kind != "U":
        raise ValueError(f"its names are {array.dtype} of shape {array.shape} for {rows} pictures")
    try:
        names = [str(name) for name in array]
        for name in names:
            os.fsencode(name)  # decoding makes files of these names
    except (ValueError, SystemError) as error:  # of numbers that are no characters NumPy makes either
        raise ValueError("one of its names is no text") from error
    return names


def _matrix(name: str, array: np.ndarray) -> Any:
    if array.ndim != 2:
        raise ValueError(f"its {name} have {array.ndim} dimensions, not 2")
    return _integers(name, array, array.shape)


def _integers(name: str, array: np.ndarray, shape: tuple[int, ...]) -> Any:
    if array.shape != shape or array.dtype.kind not in "iu":
        raise ValueError(f"its {name} are {array.dtype} of shape {array.shape}")
    return array.astype(np.int64)
