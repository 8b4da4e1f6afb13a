"""True tokens in, tokens such as a generator makes out: some of the codes are wrong."""

from __future__ import annotations

import torch

from mergevq.models.frozen import Frozen
from mergevq.models.generators.autoregressive import Generator
from mergevq.tokens import TokenBatch
from mergevq.training.recovery.config import CorruptionConfig

FLIPPED = 0.25
"""The probability of a bit of a wrong code to be wrong, where no generator says which codes are likely."""


class Corruption:
    """Replaces a random share of the codes of each image by codes that a generator could have made.

    Args:
        config: how many.
        bits: d.
        generator: a rand_ar generator of the same tokens; None flips random bits.
    """

    def __init__(self, config: CorruptionConfig, bits: int, generator: Generator | None) -> None:
        self.config = config
        self.bits = bits
        self.generator = generator if generator is None else Frozen(generator)

    @torch.no_grad()
    def __call__(self, batch: TokenBatch, rng: torch.Generator) -> TokenBatch:
        """The batch with other indices.

        Args:
            batch: on any device.
            rng: on the CPU.
        """
        rows, most = batch.indices.shape
        device = batch.indices.device
        share = self.config.share * torch.rand(rows, 1, generator=rng)
        replaced = (torch.rand(rows, most, generator=rng) < share).to(device)
        if self.generator is None:
            flips = torch.rand(rows, most, self.bits, generator=rng) < FLIPPED
            others = batch.indices ^ (flips * 2 ** torch.arange(self.bits)).sum(dim=-1).to(device)
        else:
            model = self.generator.network.to(device)
            assert isinstance(model, Generator)
            others = model.predict(batch, rng)
        return batch._replace(indices=torch.where(replaced, others, batch.indices))
