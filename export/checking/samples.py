"""Pictures and codes that verification looks at: photographs, noise and flat pictures in batches of 1, 3 and 8.

Everything is the same in every run: a sample that fails can be looked at again by its name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from mergevq.data.images.builtin import open_builtin
from mergevq.data.images.transforms import center_crop, to_float

BATCHES = (("photo",), ("photo", "noise", "flat"), ("photo",) * 4 + ("noise",) * 2 + ("flat",) * 2)
"""The kinds of pictures in each batch."""


@dataclass(frozen=True)
class Pictures:
    """A batch.

    Attributes:
        images: (B, 3, S, S) in [-1, 1].
        names: one for each image.
        kinds: photo, noise or flat.
    """

    images: torch.Tensor
    names: tuple[str, ...]
    kinds: tuple[str, ...]


def picture_batches(size: int) -> list[Pictures]:
    """The batches of `BATCHES`, of S x S pixels."""
    makers = {"photo": _photos(size), "noise": _noise(size), "flat": _flat(size)}
    batches = []
    for kinds in BATCHES:
        named = [next(makers[kind]) for kind in kinds]
        names = tuple(f"{name} (batch {len(kinds)}, row {row})" for row, (name, _) in enumerate(named))
        batches.append(Pictures(torch.stack([image for _, image in named]), names, kinds))
    return batches


def random_tokens(batch: int, keep: int, length: int, bits: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens without a picture.

    Returns:
        (B, K) int64 indices, and (B, L) int64 sources in canonical order in which every token appears.
    """
    rng = np.random.default_rng(seed)
    indices = rng.integers(0, 2**bits, (batch, keep))
    source = np.empty((batch, length), dtype=np.int64)
    for row in source:
        starts = np.sort(np.concatenate([[0], 1 + rng.permutation(length - 1)[: keep - 1]]))
        begun = np.searchsorted(starts, np.arange(length), side="right")  # tokens that have begun
        row[:] = rng.integers(0, begun)
        row[starts] = np.arange(keep)
    return indices, source


def _photos(size: int) -> Iterator[tuple[str, torch.Tensor]]:
    photos = open_builtin("photos", "val")
    while True:
        for number in range(len(photos)):
            name = f"photo {photos.classes[photos.label(number)]}"
            yield name, to_float(center_crop(photos.open(number), size)[None])[0]


def _noise(size: int) -> Iterator[tuple[str, torch.Tensor]]:
    rng = np.random.default_rng(0)
    number = 0
    while True:
        yield f"noise {number}", torch.from_numpy(rng.uniform(-1, 1, (3, size, size)).astype(np.float32))
        number += 1


def _flat(size: int) -> Iterator[tuple[str, torch.Tensor]]:
    board = torch.arange(size) // 4 % 2
    while True:
        yield "grey", torch.zeros(3, size, size)
        yield "black", -torch.ones(3, size, size)
        yield "checkerboard", ((board[:, None] + board) % 2 * 2.0 - 1).expand(3, -1, -1)
