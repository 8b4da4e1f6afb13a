"""How many tokens a step of stage 1 keeps: the distributions, and draws that a resumed run goes on with."""

from __future__ import annotations

import bisect
import itertools
import math

import torch

from mergevq.errors import ConfigError
from mergevq.training.tokenizer.config import KeepConfig


class KeepSampler:
    """Draws the kept count of each step from a generator of its own.

    Every rank seeds it alike, so that they agree without talking; its state is part of the checkpoint.

    Source: MergeVQ (arXiv:2504.00999), Appendix A.3, Eq. 15 and 16.
    """

    def __init__(self, config: KeepConfig, keep: int, seed: int):
        self.counts, weights = kept_counts(config, keep)
        self._weights = torch.tensor(weights, dtype=torch.float64)
        self._generator = torch.Generator().manual_seed(seed)

    def draw(self) -> int:
        """The next step's count."""
        return self.counts[int(torch.multinomial(self._weights, 1, generator=self._generator))]

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The generator's state."""
        return {"generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Goes on drawing where `state_dict` was taken."""
        self._generator.set_state(state["generator"])


def kept_counts(config: KeepConfig, keep: int) -> tuple[list[int], list[float]]:
    """The counts that can be drawn, in rising order, with their probabilities.

    Args:
        config: the distribution.
        keep: the preset's count, where the exponential starts and the Gaussian is centred unless it says otherwise.

    Raises:
        ConfigError: all probabilities are 0 in floating point.
    """
    if config.kind == "fixed":
        return [keep], [1.0]
    if config.kind == "uniform":
        counts = list(range(config.least, config.most + 1))
        return counts, [1 / len(counts)] * len(counts)
    sides = [side for side in range(1, math.isqrt(config.most) + 1) if side**2 >= config.least]
    centre = math.sqrt(config.centre or keep)
    if config.kind == "exponential":
        weights = [math.exp(-config.rate * abs(side - centre)) for side in sides]
    else:
        weights = [math.exp(-((side - centre) ** 2) / (2 * config.deviation**2)) for side in sides]
    weights = [weight + config.floor for weight in weights]
    total = sum(weights)
    if not total:
        raise ConfigError(
            f"keep.{'rate' if config.kind == 'exponential' else 'deviation'} leaves every count between keep.least "
            f"{config.least} and keep.most {config.most} with probability 0; they are too far from "
            f"{config.centre or keep}"
        )
    shares = [weight / total for weight in weights]
    return [side**2 for side in sides], shares if config.draws is None else _whole(shares, config.draws)


def _whole(shares: list[float], draws: int) -> list[float]:
    """The shares that evenly spaced numbers from 0 upwards find when they are looked up in the cumulative ones."""
    ends = list(itertools.accumulate(shares))
    found = [min(bisect.bisect_right(ends, number / draws), len(ends) - 1) for number in range(draws)]
    return [found.count(place) / draws for place in range(len(ends))]
