"""PIL pictures to uint8 tensors, and uint8 to the model's [-1, 1].

Each transform is a pure function of a picture, a size and a numpy `Generator`. Crop and resize are
one resampling step: only the pixels of the crop are computed. A picture that has the size already is
never resampled. Resampling is Pillow's bicubic, which widens its filter when it shrinks (no aliasing).

Legend: B batch, S pixels a side.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image

from mergevq.data.images import pixels
from mergevq.data.images.formats.frame import Frame, frame


def random_crop_flip(
    image: Image.Image, size: int, generator: np.random.Generator, max_scale: float = 1.0
) -> torch.Tensor:
    """A random square crop, mirrored half of the time: the training view for reconstruction.

    Args:
        image: an RGB picture.
        size: S.
        generator: the source of the randomness.
        max_scale: the short side is first scaled to between 1 and `max_scale` times S, uniformly;
            never beyond its own resolution, unless it is shorter than S.

    Returns:
        (3, S, S) uint8.
    """
    place = frame(image)
    short = min(place.width, place.height)
    scale = generator.uniform(1.0, max(1.0, min(max_scale, short / size)))
    side = short / scale
    left = place.left + generator.uniform(0.0, place.width - side)
    top = place.top + generator.uniform(0.0, place.height - side)
    return _to_tensor(_resample(image, left, top, side, side, size), flip=generator.random() < 0.5)


def random_resized_crop(
    image: Image.Image,
    size: int,
    generator: np.random.Generator,
    area: tuple[float, float] = (0.25, 1.0),
    aspect: tuple[float, float] = (3 / 4, 4 / 3),
) -> torch.Tensor:
    """A crop of random area and aspect ratio, mirrored half of the time: the view for alignment.

    Args:
        image: an RGB picture.
        size: S.
        generator: the source of the randomness.
        area: the least and the greatest share of the picture's area, drawn uniformly.
        aspect: the least and the greatest width / height, drawn log-uniformly.

    Returns:
        (3, S, S) uint8.

    Source: Going deeper with convolutions (arXiv:1409.4842), section 6.
    """
    place = frame(image)
    width, height = _crop_shape(place, generator, area, aspect)
    left = place.left + generator.uniform(0.0, place.width - width)
    top = place.top + generator.uniform(0.0, place.height - height)
    return _to_tensor(_resample(image, left, top, width, height, size), flip=generator.random() < 0.5)


def center_crop(image: Image.Image, size: int) -> torch.Tensor:
    """The evaluation protocol: the short side is resized to S (bicubic), then the middle is cut out.

    Returns:
        (3, S, S) uint8, equal to torchvision's `Resize(S, BICUBIC)` and `CenterCrop(S)`.
    """
    return torch.from_numpy(pixels.center_crop(image, size))


def middle_crop(image: Image.Image, multiple: int) -> torch.Tensor:
    """The picture at its own resolution, cut around the middle to sides that are multiples of `multiple`.

    Returns:
        (3, H, W) uint8.

    Raises:
        UsageError: a side is shorter than that.
    """
    return torch.from_numpy(pixels.middle_crop(image, multiple))


def to_float(images: torch.Tensor) -> torch.Tensor:
    """uint8 in [0, 255] to float32 in [-1, 1], any shape."""
    return images.float() / 127.5 - 1.0


def to_uint8(images: torch.Tensor) -> torch.Tensor:
    """Floats in [-1, 1] to uint8 in [0, 255], any shape: rounded to the nearest, clamped.

    Undoes `to_float` exactly. Metrics and pictures are made from its result.
    """
    return ((images.float() + 1.0) * 127.5).round().clamp(0.0, 255.0).to(torch.uint8)


def _crop_shape(
    place: Frame,
    generator: np.random.Generator,
    area: tuple[float, float],
    aspect: tuple[float, float],
) -> tuple[float, float]:
    """Width and height of a crop that fits; a square of the short side where ten draws did not."""
    for _ in range(10):
        pixels = place.width * place.height * generator.uniform(*area)
        ratio = math.exp(generator.uniform(math.log(aspect[0]), math.log(aspect[1])))
        width, height = math.sqrt(pixels * ratio), math.sqrt(pixels / ratio)
        if width <= place.width and height <= place.height:
            return width, height
    return min(place.width, place.height), min(place.width, place.height)


def _resample(
    image: Image.Image, left: float, top: float, width: float, height: float, size: int
) -> Image.Image:
    """The S x S picture of a box; whole pixels are copied where nothing is to be resized."""
    if width == height == size:
        left, top = round(left), round(top)
        if image.size == (size, size):
            return image
        return image.crop((left, top, left + size, top + size))
    return pixels.resample(image, (left, top, width, height), size)


def _to_tensor(image: Image.Image, flip: bool = False) -> torch.Tensor:
    return torch.from_numpy(pixels.channels_first(image, flip))  # (3, S, S)
