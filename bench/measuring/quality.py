"""What comes back from a round trip in each run time, beside photographs and beside PyTorch in float32.

A trained checkpoint is judged by its photographs. With random weights nothing that comes back resembles one, and all
that can be said is how close two run times come to each other.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch

from mergevq.bench.subjects.models import CHECKPOINT
from mergevq.bench.subjects.runtimes import Opened, Where, within
from mergevq.data.images.builtin import open_builtin
from mergevq.data.images.transforms import center_crop, to_float, to_uint8
from mergevq.metrics.image import psnr


def photographs(size: int) -> torch.Tensor:
    """(n, 3, size, size) in [-1, 1]: the built-in photographs that no demo trains on."""
    photos = open_builtin("photos", "val")
    return to_float(torch.stack([center_crop(photos.open(number), size) for number in range(len(photos))]))


def quality(opened: Opened, base: Opened, keep: int, where: Where) -> dict[str, float]:
    """Mean PSNR in decibels over the photographs, one at a time.

    Args:
        opened: the model in question.
        base: the same model in PyTorch and float32.
        keep: K.
        where: shared by both.

    Returns:
        agreement_db with `base`; of a checkpoint also psnr_db with the photographs.
    """
    pictures = photographs(base.model.config.image_size)
    mine, theirs = (_returned(each, pictures, keep, where) for each in (opened, base))
    found = {"agreement_db": float(psnr(mine, theirs).mean())}
    if CHECKPOINT:
        found["psnr_db"] = float(psnr(mine, to_uint8(pictures)).mean())
    return found


def _returned(opened: Opened, pictures: torch.Tensor, keep: int, where: Where) -> torch.Tensor:
    """(n, 3, S, S) uint8."""
    painted = []
    for picture in pictures:
        image = opened.tensors(picture[None].numpy(), where.device)
        run = within(opened, functools.partial(_round_trip, opened.model, image, keep), where.device)
        found = run()
        painted.append(torch.from_numpy(found) if isinstance(found, np.ndarray) else found.cpu())
    return to_uint8(torch.cat(painted))


def _round_trip(model: Any, image: Any, keep: int) -> Any:
    return model.decode(model.encode(image, keep))
