"""The built-in sets, and that validation shows nothing that training saw."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from PIL import Image

from mergevq.data.images.builtin import HELD_OUT, open_builtin, photo_regions
from mergevq.data.images.decode import to_rgb
from mergevq.errors import DataError, UsageError


def test_photos_load() -> None:
    train, val = open_builtin("photos", "train"), open_builtin("photos", "val")
    assert train.classes == val.classes and len(val) == len(HELD_OUT) == len(val.classes)
    assert {train.label(i) for i in range(len(train))} == set(range(len(val)))
    for source in (train, val):
        for i in range(len(source)):
            image = to_rgb(source.open(i))
            assert min(image.size) >= 64 and np.asarray(image).std() > 3
            assert source.classes[source.label(i)] in source.name(i)


@pytest.mark.parametrize("file", HELD_OUT)
def test_regions_are_inside_and_disjoint(file: str) -> None:
    folder = importlib.util.find_spec("skimage").submodule_search_locations[0]
    with Image.open(f"{folder}/data/{file}") as image:
        size = image.size
    painted = {split: np.zeros(size, bool) for split in ("train", "val")}
    for split, mask in painted.items():
        for left, top, right, bottom in photo_regions(size, HELD_OUT[file], split):
            assert 0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]
            mask[left:right, top:bottom] = True
    assert not (painted["train"] & painted["val"]).any()
    assert painted["train"].mean() > 0.3 and painted["val"].mean() > 0.08


def test_photos_are_cropped_where_the_table_says() -> None:
    left, top, side = HELD_OUT["astronaut.png"]
    folder = importlib.util.find_spec("skimage").submodule_search_locations[0]
    with Image.open(f"{folder}/data/astronaut.png") as image:
        expected = np.asarray(image)[top : top + side, left : left + side]
    assert np.array_equal(np.asarray(open_builtin("photos", "val").open(0)), expected)


def test_digits() -> None:
    train, val = open_builtin("digits", "train"), open_builtin("digits", "val")
    assert (len(train), len(val)) == (1438, 359)
    assert train.classes == [str(digit) for digit in range(10)]
    assert train.name(0) == "builtin:digits/0" and val.name(0) == "builtin:digits/1438"
    pixels = np.asarray(train.open(0))
    assert pixels.shape == (8, 8, 3) and pixels.max() > 230 and pixels.min() == 0
    assert train.label(0) == 0 and train.label(1) == 1


def test_unknown_name_and_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="'digit'; did you mean 'digits'"):
        open_builtin("digit", "train")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install scikit-image"):
        open_builtin("photos", "train")


def test_all_are_the_whole_photographs_and_every_digit() -> None:
    photos, digits = open_builtin("photos", "all"), open_builtin("digits", "all")
    assert len(photos) == len(HELD_OUT) and photos.open(0).size == (512, 512)
    assert len(digits) == 1797 and digits.name(1438) == open_builtin("digits", "val").name(0)
