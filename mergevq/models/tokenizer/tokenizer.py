"""The tokenizer: its parts in the order of the data, and the two directions through them.

Legend: B batch, H W pixels, h w grid, L = h*w positions, K kept tokens, d code bits.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from mergevq.backends import recover
from mergevq.config import TokenizerConfig
from mergevq.inputs import check_image_shape, check_same_grid, checked_grid, checked_integer
from mergevq.models.tokenizer.decoder import Decoder
from mergevq.models.tokenizer.encoder import Encoder, Encoding
from mergevq.models.tokenizer.inputs import TensorChecks
from mergevq.models.tokenizer.lfq import Quantized, Quantizer
from mergevq.models.tokenizer.merge import fewest, scaled_keep
from mergevq.models.tokenizer.recovery import SourceRecovery
from mergevq.models.tokenizer.source_map import most_likely_source, source_with_starts
from mergevq.tokens import Tokens


class Output(NamedTuple):
    """A training pass: everything that the losses look at."""

    images: torch.Tensor
    """(B, 3, H, W) reconstruction from the true source, not clamped."""
    encoding: Encoding
    quantized: Quantized
    source_logits: torch.Tensor
    """(B, L, K) of source recovery."""


class Tokenizer(nn.Module):
    """Images to kept codes with a source map, and back.

    Inputs of any floating-point or integer type are taken, and computed with in the type of the weights.

    Attributes:
        config: what it is.
        check_values: whether `encode`, `decode` and `recover_source` look at the values that they are given, beside
            types and shapes. None, the default: on the CPU alone, since it waits for any other device.

    Source: MergeVQ (arXiv:2504.00999), Section 3.
    """

    check_values: bool | None = None

    def __init__(self, config: TokenizerConfig):
        super().__init__()
        self.config = config
        bits = config.quantizer.bits
        self.encoder = Encoder(config.encoder, config.merge)
        self.quantizer = Quantizer(config.encoder.width, bits)
        self.recovery = SourceRecovery(config.recovery, bits, config.grid)
        self.decoder = Decoder(config.decoder, bits)
        _initialise(self)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.encoder.cls.device

    @property
    def dtype(self) -> torch.dtype:
        """What the weights are."""
        return self.encoder.cls.dtype

    def encode(self, images: torch.Tensor, keep: int | None = None) -> Tokens:
        """Images to tokens.

        Args:
            images: (B, 3, H, W) in [-1, 1], of any floating-point type; H and W multiples of the stride.
            keep: K; by default the preset's, and at another resolution the same share of the positions.

        Raises:
            UsageError: images of another type, shape, device or range, or a K that cannot be reached.
        """
        images = self._checks.images(images)
        keep = None if keep is None else checked_integer("keep", keep)
        encoding = self.encoder(images.to(self.dtype), self.resolve_keep(images, keep))
        return Tokens(self.quantizer(encoding.tokens).indices, encoding.source, encoding.sizes, encoding.grid)

    def decode(self, tokens: Tokens | torch.Tensor, grid: tuple[int, int] | None = None) -> torch.Tensor:
        """Tokens to images.

        Args:
            tokens: with their true source; or (B, K) indices alone, and the source is recovered from them.
            grid: (h, w) of the indices; by default the preset's.

        Returns:
            (B, 3, H, W) float32 in [-1, 1].

        Raises:
            UsageError: another type, shape, device or range, or more indices than the grid has positions.
        """
        if isinstance(tokens, Tokens):
            check_same_grid(grid, tokens.grid)
            grid = tokens.grid
            indices = self._checks.indices(tokens.indices, grid)
            source = self._checks.source(tokens.source, indices, grid)
        else:
            grid = self._grid(grid)
            indices = self._checks.indices(tokens, grid)
            source = self._recovered(indices, grid, None)
        codes = recover(self.quantizer.codes(indices), source)
        return self.decoder(codes, grid).float().clamp(-1, 1)

    def recover_source(
        self,
        indices: torch.Tensor,
        grid: tuple[int, int] | None = None,
        starts: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The source that the recovery model reads off indices alone, or off indices and where they begin.

        Args:
            indices: (B, K) int64, in canonical order.
            grid: (h, w); by default the preset's.
            starts: (B, K) int64, ascending from 0: the first position of each token, where it is known.

        Returns:
            (B, L) int64 in [0, K).

        Raises:
            UsageError: another type, shape, device or range, or more indices than positions.
        """
        grid = self._grid(grid)
        indices = self._checks.indices(indices, grid)
        return self._recovered(
            indices, grid, None if starts is None else self._checks.starts(starts, indices, grid)
        )

    def _recovered(
        self, indices: torch.Tensor, grid: tuple[int, int], starts: torch.Tensor | None
    ) -> torch.Tensor:
        logits = self.recovery(self.quantizer.codes(indices), grid)
        return most_likely_source(logits) if starts is None else source_with_starts(logits, starts)

    def forward(self, images: torch.Tensor, keep: int) -> Output:
        """One training pass: (B, 3, H, W) images in [-1, 1] and the K of this step."""
        encoding = self.encoder(images, self.resolve_keep(images, keep))
        quantized = self.quantizer(encoding.tokens)
        logits = self.recovery(quantized.codes, encoding.grid)
        painted = self.decoder(recover(quantized.codes, encoding.source), encoding.grid)
        return Output(painted, encoding, quantized, logits)

    def resolve_keep(self, images: torch.Tensor, keep: int | None) -> int:
        """K for these images, after checking that they fit the grid."""
        stride = self.config.stride
        check_image_shape(images.shape, stride)
        if keep is not None:
            return keep
        length = images.shape[2] * images.shape[3] // stride**2
        share = scaled_keep(self.config.merge.keep, self.config.length, length)
        return max(share, fewest(length, self.config.encoder.depth))

    @property
    def _checks(self) -> TensorChecks:
        return TensorChecks(self.config, self.device, self.check_values)

    def _grid(self, grid: tuple[int, int] | None) -> tuple[int, int]:
        return (self.config.grid, self.config.grid) if grid is None else checked_grid(grid)


def _initialise(model: nn.Module) -> None:
    """Normals of deviation 0.02 for linear layers; PyTorch's own for convolutions."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
