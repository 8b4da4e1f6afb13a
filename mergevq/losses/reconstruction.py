"""The pixel term: images and their reconstructions in, one scalar out."""

from __future__ import annotations

import typing
from typing import Literal

import torch
import torch.nn.functional as F

from mergevq.errors import UsageError, unknown_name

ReconstructionKind = Literal["l2", "l1"]


def reconstruction_loss(
    reconstruction: torch.Tensor, images: torch.Tensor, kind: ReconstructionKind = "l2"
) -> torch.Tensor:
    """The mean squared or absolute difference over every pixel, channel and image, in float32.

    Args:
        reconstruction: (B, C, H, W), the decoder's output.
        images: (B, C, H, W) in [-1, 1].
        kind: "l2" is Table A1's, "l1" the one that the released code runs.

    Returns:
        A scalar.

    Raises:
        UsageError: the shapes differ, or the kind is unknown.

    Source: MergeVQ (arXiv:2504.00999), Table A1.
    """
    if reconstruction.shape != images.shape:
        raise UsageError(
            f"the reconstruction is {tuple(reconstruction.shape)} and the images {tuple(images.shape)}; "
            "both must have the same shape"
        )
    if kind == "l2":
        return F.mse_loss(reconstruction.float(), images.float())
    if kind == "l1":
        return F.l1_loss(reconstruction.float(), images.float())
    raise UsageError(unknown_name("reconstruction loss", kind, typing.get_args(ReconstructionKind)))
