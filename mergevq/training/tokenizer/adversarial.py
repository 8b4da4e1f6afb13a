"""The adversarial game: the generator's loss against a frozen discriminator, and the discriminator's own."""

from __future__ import annotations

import torch
from torch import nn

from mergevq.losses.adversarial import (
    adaptive_weight,
    discriminator_hinge,
    generator_hinge,
    generator_non_saturating,
)
from mergevq.losses.lecam import LeCam
from mergevq.models.discriminator import PatchDiscriminator
from mergevq.training.tokenizer.config import LossConfig


class Critic(nn.Module):
    """A PatchGAN discriminator with LeCAM regularisation.

    Source: MergeVQ (arXiv:2504.00999), Section 5.1 and Table A1.
    """

    def __init__(self, config: LossConfig):
        super().__init__()
        self.config = config
        self.discriminator = PatchDiscriminator(layers=config.discriminator_layers)
        self.lecam = LeCam()

    def generator_loss(
        self, fakes: torch.Tensor, visible: torch.Tensor, last_layer: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The weighted adversarial loss of the tokenizer; the discriminator receives no gradient.

        Args:
            fakes: (B, 3, H, W) reconstructions.
            visible: the scalar that the adaptive weight is measured against.
            last_layer: the decoder's last weight.

        Returns:
            The weighted loss, and what is worth logging.
        """
        self.discriminator.requires_grad_(False)
        logits = self.discriminator(fakes)
        kind = generator_hinge if self.config.adversarial_kind == "hinge" else generator_non_saturating
        loss = kind(logits)
        weight = torch.full((), self.config.adversarial, device=fakes.device)
        if self.config.adaptive:
            weight = weight * adaptive_weight(visible, loss, last_layer)
        self.discriminator.requires_grad_(True)
        return weight * loss, {"generator": loss, "generator_weight": weight}

    def discriminator_loss(
        self, images: torch.Tensor, fakes: torch.Tensor, *, update: bool
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The discriminator's loss on images and on detached reconstructions.

        Args:
            images: (B, 3, H, W) in [-1, 1].
            fakes: (B, 3, H, W), detached.
            update: whether LeCAM's averages move: once an optimiser step, however many passes it has.

        Returns:
            The loss, and what is worth logging.
        """
        real_logits, fake_logits = self.discriminator(images), self.discriminator(fakes)
        loss = discriminator_hinge(real_logits, fake_logits)
        shown = {"discriminator": loss.detach()}
        if self.config.lecam:
            if update:
                self.lecam.update(real_logits, fake_logits)
            penalty = self.lecam(real_logits, fake_logits)
            loss = loss + self.config.lecam * penalty
            shown["lecam"] = penalty.detach()
        return loss, shown
