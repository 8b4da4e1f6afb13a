"""The patch discriminator: images in [-1, 1] in, a map of logits out, one for each overlapping patch.

With three layers each logit sees 70 x 70 pixels. Batch normalisation is the plain kind: real and
reconstructed images go through in separate passes, each with its own statistics.
"""

from __future__ import annotations

import torch
from torch import nn

from mergevq.errors import UsageError


class PatchDiscriminator(nn.Module):
    """A stack of strided 4 x 4 convolutions, as in pix2pix and VQGAN: 2,765,633 parameters by default.

    Source: pix2pix (arXiv:1611.07004), Sec. 3.2.2; MergeVQ (arXiv:2504.00999), Table A1.
    """

    def __init__(self, channels: int = 64, layers: int = 3) -> None:
        """Lay out and initialise the network.

        Args:
            channels: of the first convolution; doubled by each layer up to eightfold.
            layers: convolutions of stride 2; images need at least 3 * 2^layers pixels a side.

        Raises:
            UsageError: channels or layers is not positive.
        """
        super().__init__()
        if channels < 1 or layers < 1:
            raise UsageError(
                f"the discriminator has {channels} channels and {layers} layers; both must be >= 1"
            )
        widths = [channels * min(2**depth, 8) for depth in range(layers + 1)]
        modules: list[nn.Module] = [nn.Conv2d(3, channels, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for depth in range(1, layers + 1):
            stride = 2 if depth < layers else 1
            modules += [
                # No bias: the normalisation takes it away again.
                nn.Conv2d(widths[depth - 1], widths[depth], 4, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(widths[depth]),
                nn.LeakyReLU(0.2),
            ]
        modules.append(nn.Conv2d(widths[-1], 1, 4, stride=1, padding=1))
        self.network = nn.Sequential(*modules)
        self.minimum_size = 3 * 2**layers
        self.apply(_initialise)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits that are high where a patch looks real.

        Args:
            images: (B, 3, H, W) in [-1, 1].

        Returns:
            (B, 1, H / 2^layers - 2, W / 2^layers - 2): 30 x 30 for 256 pixels.

        Raises:
            UsageError: the images are too small for the number of layers.
        """
        if min(images.shape[-2:]) < self.minimum_size:
            raise UsageError(
                f"images of {images.shape[-2]} x {images.shape[-1]} px are too small for this discriminator, "
                f"which needs {self.minimum_size} px a side; use fewer layers"
            )
        logits: torch.Tensor = self.network(images)
        return logits


def _initialise(module: nn.Module) -> None:
    """Weights N(0, 0.02), gains of the normalisation N(1, 0.02), biases 0."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)
