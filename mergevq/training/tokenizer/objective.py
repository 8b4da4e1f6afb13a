"""The tokenizer's own losses: what the picture, the codes and the source map are to be.

The adversarial loss and the alignment have networks of their own and stand beside this.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from mergevq.errors import UsageError
from mergevq.losses.perceptual import find_lpips_weights, load_lpips
from mergevq.losses.reconstruction import reconstruction_loss
from mergevq.losses.source import source_accuracy, source_loss
from mergevq.models.frozen import Frozen
from mergevq.models.tokenizer.lfq import commitment, entropies
from mergevq.models.tokenizer.tokenizer import Output
from mergevq.training.tokenizer.config import LossConfig


class Objective(nn.Module):
    """The weighted sum of Table A1, without the networks that are trained against."""

    def __init__(self, config: LossConfig):
        super().__init__()
        self.config = config
        self.perceptual = Frozen(_lpips(config)) if config.perceptual else None

    def forward(self, output: Output, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Every term by name, unweighted, and the accuracy of source recovery.

        Args:
            output: of the tokenizer.
            images: (B, 3, H, W) in [-1, 1], what it saw.
        """
        painted = output.images.float()
        sample, codebook = entropies(output.quantized.z, self.config.temperature)
        source = output.encoding.source
        terms = {
            "reconstruction": reconstruction_loss(painted, images, self.config.reconstruction_kind),
            "commitment": commitment(output.quantized),
            "sample_entropy": sample,
            "codebook_entropy": codebook,
            "source": source_loss(output.source_logits, source, self.config.source_kind),
            "source_accuracy": source_accuracy(output.source_logits.detach(), source),
        }
        if self.perceptual is not None:
            terms["perceptual"] = self.perceptual(painted, images).mean()
        return terms

    def visible(self, terms: dict[str, torch.Tensor]) -> torch.Tensor:
        """What is to be seen: pixels and perception, the yardstick of the adaptive weight."""
        seen = self.config.reconstruction * terms["reconstruction"]
        return seen + self.config.perceptual * terms["perceptual"] if "perceptual" in terms else seen

    def total(self, terms: dict[str, torch.Tensor], progress: float) -> torch.Tensor:
        """The weighted sum.

        Args:
            terms: of `forward`.
            progress: the share of the run that is done, in [0, 1].
        """
        config = self.config
        return (
            self.visible(terms)
            + config.commitment * terms["commitment"]
            + config.entropy * (terms["sample_entropy"] - terms["codebook_entropy"])
            + source_weight(config, progress) * terms["source"]
        )


def source_weight(config: LossConfig, progress: float) -> float:
    """The weight of the source recovery loss when a share `progress` in [0, 1] of the run is done."""
    if config.source_end is None:
        return config.source
    return config.source * (config.source_end / config.source) ** progress


def _lpips(config: LossConfig) -> nn.Module:
    """The perceptual network, from a file that is already here."""
    weights = config.perceptual_weights or find_lpips_weights(config.perceptual_network)
    if weights is None:
        raise UsageError(
            f"the perceptual loss needs the weights of {config.perceptual_network}, which are never downloaded: "
            "give their file with --loss.perceptual_weights FILE, or leave the loss out with --loss.perceptual 0"
        )
    return load_lpips(config.perceptual_network, Path(weights))
