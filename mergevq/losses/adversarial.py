"""The adversarial terms: patch logits of the discriminator in, scalars out.

Logits have any shape with the batch first; everything is computed in float32. The terms do not touch the
discriminator: that its weights get no gradient from the generator's step is the training loop's business.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def discriminator_hinge(real_logits: torch.Tensor, fake_logits: torch.Tensor) -> torch.Tensor:
    """Half the sum of the hinge losses on real and reconstructed patches.

    Args:
        real_logits: (B, ...), logits of the images.
        fake_logits: (B, ...), logits of the detached reconstructions.

    Returns:
        A scalar.

    Source: Geometric GAN (arXiv:1705.02894); halved as in VQGAN's code.
    """
    real = F.relu(1.0 - real_logits.float()).mean()
    fake = F.relu(1.0 + fake_logits.float()).mean()
    return 0.5 * (real + fake)


def generator_hinge(fake_logits: torch.Tensor) -> torch.Tensor:
    """Minus the mean logit of the reconstructions: the generator's side of the hinge game.

    Args:
        fake_logits: (B, ...), logits of the reconstructions, with gradient.

    Returns:
        A scalar.

    Source: Geometric GAN (arXiv:1705.02894).
    """
    return -fake_logits.float().mean()


def generator_non_saturating(fake_logits: torch.Tensor) -> torch.Tensor:
    """-log sigmoid of each image's mean logit, averaged over the batch: the recipe `released`.

    Args:
        fake_logits: (B, ...), logits of the reconstructions, with gradient.

    Returns:
        A scalar.

    Source: GAN (arXiv:1406.2661), Sec. 3, on the per-image mean as the released code has it.
    """
    return F.softplus(-fake_logits.float().flatten(1).mean(dim=1)).mean()


def adaptive_weight(
    reconstruction_loss: torch.Tensor,
    generator_loss: torch.Tensor,
    last_layer_weight: torch.Tensor,
    maximum: float = 1e4,
) -> torch.Tensor:
    """The factor that gives the adversarial gradient the size of the reconstruction's.

    Both gradients are taken at the decoder's last layer and the graph is kept for the real backward pass.
    Each rank has its own factor, as in VQGAN.

    Args:
        reconstruction_loss: scalar, pixel and perceptual terms together.
        generator_loss: scalar.
        last_layer_weight: weight of the decoder's last convolution; both losses must depend on it.
        maximum: upper bound of the factor.

    Returns:
        A detached float32 scalar in [0, maximum].

    Source: VQGAN (arXiv:2012.09841), Eq. 7, with its code's 1e-4 in the denominator.
    """
    (wanted,) = torch.autograd.grad(reconstruction_loss, last_layer_weight, retain_graph=True)
    (given,) = torch.autograd.grad(generator_loss, last_layer_weight, retain_graph=True)
    ratio: torch.Tensor = wanted.float().norm() / (given.float().norm() + 1e-4)
    return ratio.clamp(0.0, maximum).detach()
