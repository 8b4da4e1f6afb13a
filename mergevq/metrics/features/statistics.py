"""The features of a set of pictures: statistics over all of them, and an even sample of the features themselves.

Batches (B, F) in; mean and covariance for the Frechet distance and (m, F) for precision and recall, whose
cost grows with the square of m, out.
"""

from __future__ import annotations

import torch

from mergevq.metrics.features.frechet import FeatureStatistics

SAMPLE = 10_000
"""Features kept at the most."""


class FeatureSet:
    """Gathers features; `update` with batches.

    Args:
        expected: how many there will be, over which the sample is spread evenly.
        most: features kept at the most.
    """

    def __init__(self, expected: int, most: int = SAMPLE) -> None:
        self.statistics = FeatureStatistics()
        self._expected = max(expected, 1)
        self._wanted = min(self._expected, most)
        self._kept: list[torch.Tensor] = []

    @classmethod
    def from_state_dict(cls, state: dict[str, torch.Tensor]) -> FeatureSet:
        """The set whose `state_dict` this is."""
        found = cls(int(state["count"]))
        found.statistics.load_state_dict(state)
        found._kept = [state["sample"]]
        return found

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Statistics and sample, from which the same set can be made again."""
        return {**self.statistics.state_dict(), "sample": self.sample}

    def __len__(self) -> int:
        return self.statistics.count

    @property
    def sample(self) -> torch.Tensor:
        """(m, F) float32, in the order of the pictures."""
        return torch.cat(self._kept) if self._kept else torch.empty(0, 0)

    def update(self, features: torch.Tensor) -> None:
        """Add a batch.

        Args:
            features: (B, F) of any floating type.

        Raises:
            UsageError: a feature is not finite, or F changed.
        """
        places = torch.arange(len(self), len(self) + len(features))
        kept = (places + 1) * self._wanted // self._expected > places * self._wanted // self._expected
        self.statistics.update(features)
        self._kept.append(features.detach().cpu().float()[kept])
