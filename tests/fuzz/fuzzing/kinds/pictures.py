"""Single pictures, in the formats that data sets come in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from fuzzing.case import Kind, Mutator, Target
from fuzzing.mutators.pictures import BMP, GIF, JPEG, PNG, TIFF, WEBP
from fuzzing.mutators.places import PLACES
from fuzzing.verdicts import complaint

SIZE = 256
"""Pixels a side of what is cut out: at the size of the paper's presets a strip takes the most."""


def photo(seed: int = 0, mode: str = "RGB") -> object:
    """A small picture that is not flat."""
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


def read_pictures(folder: Path, size: int = SIZE) -> list[str]:
    """Every picture of a folder or of a shard by each way in: training, validation, and the commands'.

    Returns:
        Why pictures were left out.
    """
    from mergevq.cli.shared.pictures import PictureReader, find_pictures
    from mergevq.data.images.loader import DataConfig, eval_loader, train_loader

    config = DataConfig(path=str(folder), workers=0)
    said, read = [], 0
    for batch in eval_loader(config, size=size, batch_size=4, split="all"):
        said += [failure.reason for failure in batch.failures]
        read += len(batch.labels)
    if read and not said:  # else it would be tried a hundred times
        for batch in train_loader(config, size=size, batch_size=2, seed=0, steps=1):
            said += [failure.reason for failure in batch.failures]
    for _ in PictureReader(find_pictures([str(folder)]), size, 4, 2):
        pass
    return said


def _read_file(name: str, folder: Path) -> None:
    """A file in a format that folders need not have."""
    from mergevq.cli.shared.pictures import PictureReader, find_pictures

    for _ in PictureReader(find_pictures([str(folder / name)]), SIZE, 4, 2):
        pass


def check_reasons(found: object) -> str | None:
    """Reasons are read by people too."""
    reasons = found if isinstance(found, list) else []
    return next((f"a reason {what}: {text[:300]}" for text in reasons if (what := complaint(text))), None)


def _make(name: str, folder: Path) -> None:
    photo().save(folder / name)  # type: ignore[attr-defined]


def _kind(name: str, mutators: Sequence[Mutator]) -> Kind:
    make: Callable[[Path], object] = partial(_make, name)
    targets = (Target(name, mutators, 12), Target(name, PLACES))
    read = partial(_read_file, name) if name.endswith(".gif") else read_pictures
    return Kind(make=make, targets=targets, read=read, check=check_reasons, default=12, seconds=8)


KINDS = {
    "png": _kind("p.png", PNG),
    "jpeg": _kind("p.jpg", JPEG),
    "webp": _kind("p.webp", WEBP),
    "tiff": _kind("p.tiff", TIFF),
    "bmp": _kind("p.bmp", BMP),
    "gif": _kind("p.gif", GIF),
}
