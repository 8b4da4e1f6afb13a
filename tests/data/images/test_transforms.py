"""Crops against torchvision and against pictures whose pixels say where they come from."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pytest
import skimage
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

from mergevq.data.images.decode import load_image, to_rgb
from mergevq.data.images.formats.opening import open_picture
from mergevq.data.images.pixels import decoded_side
from mergevq.data.images.transforms import (
    center_crop,
    middle_crop,
    random_crop_flip,
    random_resized_crop,
    to_float,
    to_uint8,
)
from mergevq.errors import UsageError


def _map(width: int, height: int) -> Image.Image:
    """Red is the column and green the row of a pixel."""
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack([x, y, x * 0], -1).astype(np.uint8))


def _noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def _random(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@settings(deadline=None, max_examples=40)
@given(width=st.integers(6, 90), height=st.integers(6, 90), size=st.integers(4, 64))
def test_center_crop_is_torchvisions(width: int, height: int, size: int) -> None:
    image = _noise(width, height)
    resized = tv.resize(image, size, InterpolationMode.BICUBIC)
    expected = tv.pil_to_tensor(tv.center_crop(resized, [size, size]))
    assert torch.equal(center_crop(image, size), expected)


@pytest.mark.parametrize(("width", "height"), [(900, 30), (30, 900), (545, 32), (500, 7), (6, 300)])
@pytest.mark.parametrize("size", [24, 32])
def test_long_pictures_are_cropped_as_if_resized_first(width: int, height: int, size: int) -> None:
    y, x = np.mgrid[0:height, 0:width]
    smooth = np.stack([x % 256, y % 256, (x + y) % 200], -1).astype(np.uint8)
    image = Image.fromarray(smooth).resize((width, height), Image.Resampling.BICUBIC)
    resized = tv.resize(image, size, InterpolationMode.BICUBIC)
    expected = tv.pil_to_tensor(tv.center_crop(resized, [size, size])).int()
    assert (center_crop(image, size).int() - expected).abs().max() <= 1


@pytest.mark.parametrize("shape", [(30_000, 2), (1, 20_000), (40_000, 1)])
def test_strips_take_no_memory(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    resize = Image.Image.resize
    sizes = []

    def watched(image: Image.Image, size: tuple[int, int], *rest: object, **options: object) -> Image.Image:
        sizes.append(size)
        return resize(image, size, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Image.Image, "resize", watched)
    assert (
        center_crop(Image.new("RGB", shape, (9, 90, 200)), 256).permute(1, 2, 0).numpy() == (9, 90, 200)
    ).all()
    assert random_crop_flip(Image.new("RGB", shape), 256, _random(0)).shape == (3, 256, 256)
    assert random_resized_crop(Image.new("RGB", shape), 256, _random(0)).shape == (3, 256, 256)
    assert set(sizes) == {(256, 256)}


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    """1411 x 1271 px: no side is a multiple of 8, so that a picture at reduced size ends inside a pixel."""
    return load_image(Path(skimage.__file__).parent / "data" / "retina.jpg").crop((0, 70, 1411, 1341))


def _both(photo: Image.Image, orientation: int, at_least: int) -> tuple[Image.Image, Image.Image]:
    """A JPEG decoded as a whole, and at a reduced size."""
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo.save(file, "JPEG", quality=90, exif=exif)
    data = file.getvalue()
    return to_rgb(open_picture(data)), to_rgb(open_picture(data), at_least)


@pytest.mark.parametrize(
    ("shrunk", "orientation"), [(2, 1), (4, 1), *((8, number) for number in range(1, 9))]
)
def test_a_crop_of_a_jpeg_at_reduced_size_is_that_of_the_whole(
    photo: Image.Image, shrunk: int, orientation: int
) -> None:
    size = 1271 // decoded_side(shrunk)
    whole, reduced = _both(photo, orientation, decoded_side(size))
    assert sorted(reduced.size) == [math.ceil(1271 / shrunk), math.ceil(1411 / shrunk)]
    error = (center_crop(reduced, size).int() - center_crop(whole, size).int()).abs().float()
    assert error.mean() < 0.4 and error.quantile(0.99) <= 3


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("transform", [random_crop_flip, random_resized_crop])
def test_random_crops_of_a_jpeg_at_reduced_size(
    photo: Image.Image, transform: type[random_crop_flip], orientation: int
) -> None:
    whole, reduced = _both(photo, orientation, 158)
    assert max(reduced.size) == 177
    for seed in range(4):
        error = (
            transform(reduced, 70, _random(seed)).int() - transform(whole, 70, _random(seed)).int()
        ).abs()
        assert error.float().mean() < 0.9


def test_matching_size_is_copied() -> None:
    image = _noise(32, 32)
    pixels = torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy())
    assert torch.equal(center_crop(image, 32), pixels)
    flipped = 0
    for seed in range(200):
        result = random_crop_flip(image, 32, _random(seed), max_scale=2.0)
        if not torch.equal(result, pixels):
            assert torch.equal(result, pixels.flip(2))
            flipped += 1
    assert 70 < flipped < 130


def test_crop_without_scaling_copies_whole_pixels() -> None:
    lefts = set()
    for seed in range(60):
        crop = random_crop_flip(_map(50, 20), 20, _random(seed)).int()
        columns = crop[0, 0]
        if columns[0] > columns[-1]:
            columns = columns.flip(0)
        assert columns.tolist() == list(range(int(columns[0]), int(columns[0]) + 20))
        assert crop[1, :, 0].tolist() == list(range(20))
        lefts.add(int(columns[0]))
    assert min(lefts) <= 3 and max(lefts) >= 27


@settings(deadline=None, max_examples=60)
@given(
    width=st.integers(3, 200),
    height=st.integers(3, 200),
    size=st.integers(2, 64),
    max_scale=st.floats(1.0, 4.0),
    seed=st.integers(0, 2**32),
)
def test_zoom_stays_in_its_range(width: int, height: int, size: int, max_scale: float, seed: int) -> None:
    crop = random_crop_flip(_map(width, height), size, _random(seed), max_scale)
    assert crop.shape == (3, size, size) and crop.dtype == torch.uint8
    rows = crop[1].float()
    short = min(width, height)
    span = float(rows.max() - rows.min())
    greatest = max(1.0, min(max_scale, short / size))
    assert short / greatest - short / size - 2 - size / short <= span + 2
    assert span <= short


def test_zoom_uses_its_whole_range() -> None:
    steps = [
        float(random_crop_flip(_map(200, 200), 50, _random(seed), 4.0)[1].float().diff(dim=0).mean())
        for seed in range(200)
    ]  # source pixels a target pixel: 4 / scale
    assert 0.95 < min(steps) < 1.1 and 3.5 < max(steps) <= 4.05


def test_small_pictures_are_enlarged() -> None:
    assert random_crop_flip(_noise(5, 7), 32, _random(0), 3.0).shape == (3, 32, 32)
    assert random_resized_crop(_noise(1, 1), 16, _random(0)).shape == (3, 16, 16)
    assert center_crop(_noise(5, 7), 32).shape == (3, 32, 32)


@settings(deadline=None, max_examples=60)
@given(width=st.integers(1, 250), height=st.integers(1, 250), seed=st.integers(0, 2**32))
def test_resized_crop_fits_any_picture(width: int, height: int, seed: int) -> None:
    assert random_resized_crop(_map(width, height), 24, _random(seed)).shape == (3, 24, 24)


def test_resized_crop_covers_the_area_asked_for() -> None:
    areas, aspects = [], []
    for seed in range(300):
        crop = random_resized_crop(_map(250, 250), 25, _random(seed)).float()
        width = float(crop[0].max() - crop[0].min()) * 25 / 24
        height = float(crop[1].max() - crop[1].min()) * 25 / 24
        areas.append(width * height / 250**2)
        aspects.append(width / height)
    assert 0.22 < min(areas) < 0.3 and 0.9 < max(areas) < 1.05
    assert 0.7 < min(aspects) < 0.8 and 1.25 < max(aspects) < 1.42


@pytest.mark.parametrize("transform", [random_crop_flip, random_resized_crop])
def test_randomness_is_the_generators(transform: type[random_crop_flip]) -> None:
    image = _noise(90, 70)
    first, again, other = (transform(image, 32, _random(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_uint8_and_float_undo_each_other() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    floats = to_float(levels)
    assert floats.dtype == torch.float32 and floats[0] == -1 and floats[-1] == 1
    assert torch.equal(to_uint8(floats), levels)


def test_to_uint8_rounds_and_clamps() -> None:
    values = torch.tensor([-7.0, -1.0, -1 + 0.6 / 127.5, -1 + 0.4 / 127.5, 1.0, 7.0])
    assert to_uint8(values).tolist() == [0, 0, 1, 0, 255, 255]
    assert to_uint8(values.bfloat16())[[0, 5]].tolist() == [0, 255]


@settings(deadline=None)
@given(width=st.integers(4, 40), height=st.integers(4, 40))
def test_the_middle_is_cut_to_multiples_without_resampling(width: int, height: int) -> None:
    pixels = np.arange(width * height * 3, dtype=np.uint64).reshape(height, width, 3).astype(np.uint8)
    cut = middle_crop(Image.fromarray(pixels), 4).permute(1, 2, 0).numpy()
    assert cut.shape == (height // 4 * 4, width // 4 * 4, 3)
    top, left = (height % 4) // 2, (width % 4) // 2
    assert np.array_equal(cut, pixels[top : top + cut.shape[0], left : left + cut.shape[1]])


def test_a_picture_below_one_patch_has_no_middle() -> None:
    with pytest.raises(UsageError, match="9 x 3 px is smaller than one patch of 4 px"):
        middle_crop(Image.new("RGB", (9, 3)), 4)
