"""LeCAM regularisation: real and reconstructed logits in, one scalar for the discriminator out.

Decisions:
- The squared hinge is taken per logit and not on the mean logit. This is LeCAM's own form and the one that
  the weight 0.01 of Table A1 belongs to; on the mean logit the term is many times smaller.
- `update` comes before `forward` in a step, so that the averages include the current batch; that is the
  order of LeCAM's and of the released code. They are separate calls: a step that only evaluates the loss
  changes nothing.
- The averages are buffers: they are in every checkpoint, and the same on all ranks.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from mergevq.errors import UsageError
from mergevq.losses.ranks import mean_over_ranks


class LeCam(nn.Module):
    """Keeps the logits of each side near the running mean of the other side.

        R = E[relu(real - ema_fake)^2] + E[relu(ema_real - fake)^2]

    Differs: LeCAM squares the difference itself; the hinge, from its code, only acts where the
    discriminator separates the sides by more than the running mean.

    Source: Regularizing GANs under Limited Data (arXiv:2104.03310).
    """

    ema_real: torch.Tensor
    ema_fake: torch.Tensor

    def __init__(self, decay: float = 0.999) -> None:
        """Start both averages at zero.

        Args:
            decay: share of the old average kept by an update, in [0, 1).

        Raises:
            UsageError: the decay is outside [0, 1).
        """
        super().__init__()
        if not 0.0 <= decay < 1.0:
            raise UsageError(f"LeCAM's decay is {decay}; it must be in [0, 1)")
        self.decay = decay
        self.register_buffer("ema_real", torch.zeros((), dtype=torch.float32))
        self.register_buffer("ema_fake", torch.zeros((), dtype=torch.float32))

    @torch.no_grad()
    def update(self, real_logits: torch.Tensor, fake_logits: torch.Tensor) -> None:
        """Move the averages towards the mean logits of the global batch; call it once a step.

        Args:
            real_logits: (B, ...), logits of the images.
            fake_logits: (B, ...), logits of the reconstructions.
        """
        means = torch.stack([real_logits.float().mean(), fake_logits.float().mean()])
        real, fake = mean_over_ranks(means).unbind()
        self.ema_real.lerp_(real, 1.0 - self.decay)
        self.ema_fake.lerp_(fake, 1.0 - self.decay)

    def forward(self, real_logits: torch.Tensor, fake_logits: torch.Tensor) -> torch.Tensor:
        """The regulariser under the present averages.

        Args:
            real_logits: (B, ...), logits of the images, with gradient.
            fake_logits: (B, ...), logits of the reconstructions, with gradient.

        Returns:
            A scalar.
        """
        real = F.relu(real_logits.float() - self.ema_fake).square().mean()
        fake = F.relu(self.ema_real - fake_logits.float()).square().mean()
        return real + fake
