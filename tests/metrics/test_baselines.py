"""JPEG at a budget of bits, and the mean colour."""

from __future__ import annotations

import functools
import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mergevq.errors import UsageError
from mergevq.metrics.baselines import jpeg_at_bits, jpegs_at_bits, mean_colour
from mergevq.metrics.image import psnr


@functools.cache
def photo() -> Image.Image:
    from skimage import data

    return Image.fromarray(data.chelsea()).crop((100, 60, 148, 108))


def encoded(picture: Image.Image, quality: int, subsampling: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality, subsampling=subsampling, optimize=True)
    return buffer.getvalue()


@functools.cache
def all_scan_bits(subsampling: str) -> list[int]:
    return [scan_bits(encoded(photo(), quality, subsampling)) for quality in range(1, 101)]


def scan_bits(file: bytes) -> int:
    """The scan found from the other end: what follows the only start-of-scan header, to the end marker."""
    header, scan = file.split(b"\xff\xda")
    assert header[:2] == b"\xff\xd8"
    assert scan[-2:] == b"\xff\xd9"
    return 8 * (len(scan) - 2 - int.from_bytes(scan[:2], "big"))


def pixels(picture: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


@settings(max_examples=15, deadline=None)
@given(st.integers(300, 20_000))
def test_the_budget_is_kept_and_used(bits: int) -> None:
    """No subsampling fits one quality more, and the better of the two is taken."""
    image = pixels(photo())
    found = jpeg_at_bits(image, bits)
    candidates = []
    for subsampling in ("4:4:4", "4:2:0"):
        sizes = all_scan_bits(subsampling)
        assert sizes == sorted(sizes)
        if sizes[0] <= bits:
            quality = sum(size <= bits for size in sizes)
            decoded = pixels(Image.open(io.BytesIO(encoded(photo(), quality, subsampling))))
            candidates.append(float(psnr(decoded[None], image[None])))
    if found is None:
        assert not candidates
        return
    assert found.scan_bits <= bits
    assert found.psnr >= max(candidates, default=0.0) - 1e-4
    file = encoded(photo(), found.quality, found.subsampling)
    assert (found.scan_bits, found.file_bits) == (scan_bits(file), 8 * len(file))
    assert torch.equal(found.image, pixels(Image.open(io.BytesIO(file))))


def test_budgets_share_one_search() -> None:
    image, budgets = pixels(photo()), [100, 1000, 4000]
    together = jpegs_at_bits(image, budgets)
    alone = [jpeg_at_bits(image, bits) for bits in budgets]
    summary = [
        [jpeg and (jpeg.quality, jpeg.subsampling, jpeg.psnr) for jpeg in jpegs]
        for jpegs in (together, alone)
    ]
    assert summary[0] == summary[1]
    assert together[0] is None
    assert together[1] is not None
    assert together[2] is not None
    assert together[1].psnr < together[2].psnr


def test_an_impossible_budget_has_no_jpeg() -> None:
    assert jpeg_at_bits(pixels(photo()), 8) is None


def test_an_unlimited_budget_takes_the_best_quality() -> None:
    found = jpeg_at_bits(pixels(photo()), 10**9)
    assert found is not None
    assert (found.quality, found.subsampling) == (100, "4:4:4")


def test_mean_colour_is_the_best_single_colour() -> None:
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    flat = mean_colour(images)
    assert flat.shape == images.shape
    assert torch.equal(flat[:, :, 0, 0], images.double().mean((2, 3)).round().to(torch.uint8))
    assert (psnr(flat, images) >= psnr((flat.int() + 3).clamp(0, 255).to(torch.uint8), images)).all()


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 16)])
def test_what_is_no_colour_picture_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"\(3, H, W\) uint8"):
        jpeg_at_bits(torch.zeros(shape, dtype=torch.uint8), 100)
