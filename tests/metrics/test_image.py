"""PSNR and SSIM against scikit-image, and their invariants."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from mergevq.errors import UsageError
from mergevq.metrics.image import PSNR_CAP, WINDOW, psnr, ssim

PAIRS = hnp.arrays(np.uint8, (2, 2, 3, 12, 13))


def noisy(image: torch.Tensor, deviation: float) -> torch.Tensor:
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    return (image.float() + deviation * noise).round().clamp(0, 255).to(torch.uint8)


def as_batch(picture: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]


def skimage_ssim(image: torch.Tensor, reference: torch.Tensor) -> float:
    return structural_similarity(
        image[0].numpy(),
        reference[0].numpy(),
        channel_axis=0,
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )


@pytest.mark.parametrize("deviation", [1.0, 8.0, 60.0])
def test_psnr_and_ssim_are_those_of_scikit_image(
    photo_crops: list[tuple[str, Image.Image]], deviation: float
) -> None:
    for _, picture in photo_crops[:6]:
        reference = as_batch(picture)
        image = noisy(reference, deviation)
        expected = peak_signal_noise_ratio(reference[0].numpy(), image[0].numpy(), data_range=255)
        assert float(psnr(image, reference)) == pytest.approx(expected, abs=1e-4)
        assert float(ssim(image, reference)) == pytest.approx(skimage_ssim(image, reference), abs=2e-5)


@pytest.mark.parametrize("side", [WINDOW, WINDOW + 1, 37])
@pytest.mark.parametrize("level", [0, 128, 250])
def test_ssim_of_flat_pictures_is_accurate(side: int, level: int) -> None:
    """A small variance on a large mean is where float32 would cancel."""
    reference = torch.full((1, 3, side, side), level, dtype=torch.uint8)
    image = noisy(reference, 1.0)
    assert float(ssim(image, reference)) == pytest.approx(skimage_ssim(image, reference), abs=2e-4)


def test_psnr_of_a_known_error() -> None:
    reference = torch.full((1, 3, 16, 16), 100, dtype=torch.uint8)
    assert float(psnr(reference + 5, reference)) == pytest.approx(20 * np.log10(255 / 5), abs=1e-4)


def test_each_image_has_its_own_psnr() -> None:
    reference = torch.full((2, 3, 16, 16), 100, dtype=torch.uint8)
    image = reference.clone()
    image[0] += 1
    image[1] += 50
    separate = psnr(image, reference)
    alone = torch.cat([psnr(image[i : i + 1], reference[i : i + 1]) for i in range(2)])
    pooled = psnr(image.reshape(1, 6, 16, 16), reference.reshape(1, 6, 16, 16))
    assert torch.equal(separate, alone)
    assert float(separate.mean()) > float(pooled) + 10


def test_identical_pictures_have_the_cap(photo_crops: list[tuple[str, Image.Image]]) -> None:
    image = as_batch(photo_crops[0][1])
    assert psnr(image, image).tolist() == [PSNR_CAP]


@settings(max_examples=30, deadline=None)
@given(PAIRS)
def test_symmetry_and_bounds(pair: np.ndarray) -> None:
    first, second = torch.from_numpy(pair)
    assert torch.equal(psnr(first, second), psnr(second, first))
    assert psnr(first, second).max() <= PSNR_CAP
    torch.testing.assert_close(ssim(first, second), ssim(second, first))
    torch.testing.assert_close(ssim(first, first), torch.ones(2))
    assert ssim(first, second).abs().max() <= 1 + 1e-5


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_unrounded_or_unequal_pictures_are_refused(metric: object) -> None:
    pictures = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    with pytest.raises(UsageError, match=r"torch\.float32"):
        metric(pictures.float(), pictures)  # type: ignore[operator]
    with pytest.raises(UsageError, match="one shape"):
        metric(pictures[:1], pictures)  # type: ignore[operator]
    with pytest.raises(UsageError, match="B, C, H, W"):
        metric(pictures[0], pictures[0])  # type: ignore[operator]


def test_pictures_below_the_window_have_no_ssim() -> None:
    pictures = torch.zeros(1, 3, 8, 20, dtype=torch.uint8)
    with pytest.raises(UsageError, match="8 x 20"):
        ssim(pictures, pictures)
