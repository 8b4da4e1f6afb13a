"""What is refused before it is decoded, and JPEGs at a reduced size."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from mergevq.data.images.decode import load_image, to_rgb
from mergevq.data.images.formats.limits import Limits
from mergevq.data.images.formats.opening import open_picture
from mergevq.errors import ConfigError, DataError


def stored(width: int, height: int, kind: str = "PNG", **options: object) -> Image.Image:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(file, kind, **options)
    return open_picture(file.getvalue())


def test_the_borders_are_inside() -> None:
    to_rgb(stored(20, 30), limits=Limits(max_pixels=600, max_aspect=1.5))
    with pytest.raises(ValueError, match=r"^20 x 30 px are 600, and max_pixels is 599; raise it"):
        to_rgb(stored(20, 30), limits=Limits(max_pixels=599))
    with pytest.raises(
        ValueError, match=r"^20 x 30 px .* 2 times the shorter one, and max_aspect is 1.4; raise it"
    ):
        to_rgb(stored(20, 30), limits=Limits(max_aspect=1.4))


@pytest.mark.parametrize(("width", "height"), [(1, 20_000), (30_000, 2), (40_000, 1)])
def test_strips_are_refused_by_default(width: int, height: int) -> None:
    with pytest.raises(ValueError, match="max_aspect is 100"):
        to_rgb(stored(width, height))


def test_a_large_file_is_refused_before_it_is_decoded(tmp_path) -> None:
    path = tmp_path / "large.png"
    Image.new("1", (13_300, 13_300)).save(path)
    with pytest.raises(
        DataError, match=r"large\.png: 13300 x 13300 px are 176890000, and max_pixels is 89478485"
    ):
        load_image(path)


def test_a_jpeg_counts_less_where_a_reduced_size_is_enough() -> None:
    limits = Limits(max_pixels=10_000)
    assert to_rgb(stored(200, 200, "JPEG"), 50, limits).size == (50, 50)
    for image, at_least in (
        (stored(200, 200, "JPEG"), None),
        (stored(200, 200, "JPEG"), 120),
        (stored(200, 200, "JPEG", progressive=True), 50),  # its coefficients are kept in memory
        (stored(204, 200, "JPEG"), 50),
        (stored(200, 200, "PNG"), 50),
    ):
        with pytest.raises(ValueError, match="max_pixels"):
            to_rgb(image, at_least, limits)


@pytest.mark.parametrize("bad", [{"max_pixels": 0}, {"max_aspect": 0.5}, {"max_aspect": float("nan")}])
def test_limits_that_no_picture_keeps(bad) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        Limits(**bad)


def test_transparent_pictures_are_composited_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (23, 17, 4), np.uint8)
    image = Image.fromarray(pixels, "RGBA")
    whole = np.asarray(to_rgb(image))
    monkeypatch.setattr("mergevq.data.images.decode._STRIP", 40)
    assert (np.asarray(to_rgb(image)) == whole).all()
    share = pixels[..., 3:] / 255
    assert np.abs(whole - (pixels[..., :3] * share + 255 * (1 - share))).max() <= 1
