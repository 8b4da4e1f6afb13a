"""Where the tokens of rand_ar's training images begin, as a file beside the graphs; needs NumPy alone.

Legend: n remembered sets, L positions.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mergevq.errors import CheckpointError
from mergevq.storage.arrays import read_npz

LAYOUTS = "layouts.npz"


def write_layouts(folder: Path, positions: np.ndarray, labels: np.ndarray) -> None:
    """Writes (n, L) bool sets of first positions, a bit each, and the (n,) classes of their images."""
    np.savez(folder / LAYOUTS, positions=np.packbits(positions, axis=1), labels=labels)


def read_layouts(folder: Path, length: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, L) bool sets of first positions, and the (n,) int64 classes of their images.

    Args:
        folder: of a rand_ar generator.
        length: L.

    Raises:
        CheckpointError: the file is not one of these.
    """
    path = folder / LAYOUTS
    try:
        packed, labels = read_npz(path, ("positions", "labels")).values()
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}; export again") from error
    typed = packed.dtype == np.uint8 and labels.dtype == np.int64 and labels.ndim == 1
    if not typed or packed.shape != (len(labels), -(-length // 8)):
        raise CheckpointError(f"{path} is not of a grid of {length} positions; export again")
    return np.unpackbits(packed, axis=1, count=length).astype(bool), labels
