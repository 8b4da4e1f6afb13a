"""Picture sets that come with the packages mergevq needs anyway: nothing is downloaded.

`photos` are photographs inside scikit-image. They are few and large, so training crops them at random,
and validation keeps one square of each that training never sees a pixel of.
`digits` are the 1,797 handwritten digits of scikit-learn, 8 x 8 pixels.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from mergevq.data.images.decode import load_image
from mergevq.data.listing.splits import Census, Split
from mergevq.errors import DataError, UsageError, unknown_name

# Left, top, side in pixels of the square kept for validation: the part by which one knows the picture.
# The other half of the stereo pair motorcycle_left/right is left out: it shows the same pixels.
HELD_OUT = {
    "astronaut.png": (140, 10, 180),
    "chelsea.png": (125, 65, 235),
    "coffee.png": (170, 5, 260),
    "rocket.jpg": (230, 125, 220),
    "motorcycle_left.png": (370, 170, 300),
    "camera.png": (150, 50, 190),
    "retina.jpg": (60, 400, 550),
    "coins.png": (255, 130, 129),
    "hubble_deep_field.jpg": (560, 300, 400),
    "moon.png": (60, 30, 180),
    "ihc.png": (230, 290, 200),
    "brick.png": (300, 300, 200),
    "grass.png": (300, 300, 200),
    "gravel.png": (300, 300, 200),
}
_SHORTEST = 64
"""Pixels; a strip beside the held-out square that is narrower is not worth training on."""

_DIGITS = 1797

Box = tuple[int, int, int, int]


class MemorySource:
    """Pictures that are decoded once and kept.

    Args:
        names: one for each picture, for messages.
        images: the pictures.
        labels: the class of each.
        classes: the names of the classes.
        max_scale: see `ImageSource`.
    """

    def __init__(
        self,
        names: list[str],
        images: list[Image.Image],
        labels: list[int],
        classes: list[str],
        max_scale: float = 1.0,
    ) -> None:
        self.classes = classes
        self.max_scale = max_scale
        self._names = names
        self._images = images
        self._labels = labels

    def __len__(self) -> int:
        return len(self._images)

    def name(self, index: int) -> str:
        """What the picture is called."""
        return self._names[index]

    def label(self, index: int) -> int:
        """The class of a picture, a position in `classes`."""
        return self._labels[index]

    def open(self, index: int) -> Image.Image:
        """The picture."""
        return self._images[index]


def open_builtin(name: str, split: Split) -> MemorySource:
    """A built-in set by its name, without the `builtin:`.

    Raises:
        UsageError: there is none of this name; the nearest one is suggested.
        DataError: the package that holds it is not installed.
    """
    if name not in _BUILTIN:
        raise UsageError(unknown_name("built-in data set", name, _BUILTIN))
    return _BUILTIN[name](split)


def builtin_census(name: str, split: Split) -> Census:
    """How many pictures a built-in set has; none is decoded."""
    if split == "all":
        return Census(_COUNTS[name]("all"), None, "", named=False)
    return Census(_COUNTS[name]("train"), _COUNTS[name]("val"), "built in", named=True)


def photo_regions(size: tuple[int, int], held_out: tuple[int, int, int], split: Split) -> list[Box]:
    """The rectangles of a photograph that belong to a split, as (left, top, right, bottom).

    Validation has the held-out square. Training has the largest rectangles to its left, its right,
    above and below it, which overlap one another but not the square. Both together are the photograph.
    """
    left, top, side = held_out
    right, bottom = left + side, top + side
    if split == "val":
        return [(left, top, right, bottom)]
    width, height = size
    if split == "all":
        return [(0, 0, width, height)]
    boxes = [(0, 0, left, height), (right, 0, width, height), (0, 0, width, top), (0, bottom, width, height)]
    return [box for box in boxes if min(box[2] - box[0], box[3] - box[1]) >= _SHORTEST]


def _photos(split: Split) -> MemorySource:
    folder = _photo_folder()
    names, images, labels = [], [], []
    for label, (file, held_out) in enumerate(HELD_OUT.items()):
        photo = load_image(folder / file)
        for box in photo_regions(photo.size, held_out, split):
            names.append(f"builtin:photos/{file}[{box[0]}:{box[2]}, {box[1]}:{box[3]}]")
            images.append(photo.crop(box))
            labels.append(label)
    return MemorySource(names, images, labels, [Path(file).stem for file in HELD_OUT], max_scale=3.0)


def _digits(split: Split) -> MemorySource:
    _package_folder("sklearn", "scikit-learn")
    from sklearn.datasets import load_digits  # heavy, and wanted here only

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # (1797, 8, 8), 17 grey levels
    rows = _digit_rows(split)
    return MemorySource(
        [f"builtin:digits/{row}" for row in rows],
        [Image.fromarray(pixels[row]).convert("RGB") for row in rows],
        [int(digits.target[row]) for row in rows],
        [str(digit) for digit in range(10)],
    )


def _digit_rows(split: Split) -> range:
    """The last fifth is for validation."""
    border = _DIGITS - _DIGITS // 5
    return {"train": range(border), "val": range(border, _DIGITS), "all": range(_DIGITS)}[split]


def _count_regions(split: Split) -> int:
    count = 0
    for file, held_out in HELD_OUT.items():
        with Image.open(_photo_folder() / file) as photo:
            count += len(photo_regions(photo.size, held_out, split))
    return count


def _photo_folder() -> Path:
    return _package_folder("skimage", "scikit-image") / "data"


def _package_folder(module: str, package: str) -> Path:
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            f"this built-in set is inside {package}, which is not installed: pip install {package}"
        )
    return Path(spec.submodule_search_locations[0])


_BUILTIN: dict[str, Callable[[Split], MemorySource]] = {"photos": _photos, "digits": _digits}
_COUNTS: dict[str, Callable[[Split], int]] = {
    "photos": _count_regions,
    "digits": lambda split: len(_digit_rows(split)),
}
