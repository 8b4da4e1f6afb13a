"""A checksum for each record of a token shard, compared whenever the record is read: damage on a disk is found there.

One for a whole shard would have all of it read before the first batch.
"""

from __future__ import annotations

import zlib

import numpy as np


def checksums(indices: np.ndarray, source: np.ndarray, keep: np.ndarray, label: np.ndarray) -> np.ndarray:
    """CRC-32 of records as they stand in the files, their little-endian bytes one array after another.

    Args:
        indices: (n, Kmax) int32.
        source: (n, L) uint16.
        keep: (n,) int16.
        label: (n,) int32.

    Returns:
        (n,) uint32.
    """
    parts = [_bytes(array) for array in (indices, source, keep, label)]
    return np.array([zlib.crc32(row) for row in np.concatenate(parts, axis=1)], np.uint32)


def _bytes(array: np.ndarray) -> np.ndarray:
    """(n, bytes of a row) uint8."""
    ordered = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return ordered.reshape(len(array), -1).view(np.uint8) if len(array) else np.empty((0, 1), np.uint8)
