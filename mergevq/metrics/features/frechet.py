"""The Frechet distance between two sets of features, each summarised by its mean and covariance.

Feature batches (B, F) in, one number out. All in float64 on the CPU: covariances of thousands of dimensions
lose the distance in float32. Batches and ranks merge by the pairwise update of Chan et al. 1983, which is
stable where the sum of squares is not.
"""

from __future__ import annotations

import torch

from mergevq.errors import UsageError


class FeatureStatistics:
    """Running mean and covariance of features; empty until the first `update`."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.empty(0, dtype=torch.float64)  # (F,)
        self._scatter = torch.empty(0, 0, dtype=torch.float64)  # (F, F) sum of products of deviations

    def update(self, features: torch.Tensor) -> None:
        """Add a batch.

        Args:
            features: (B, F) of any floating type.

        Raises:
            UsageError: a feature is not finite, or F changed.
        """
        values = features.detach().cpu().double()
        if not bool(torch.isfinite(values).all()):
            raise UsageError("features hold NaN or infinity; look for non-finite pictures or weights")
        if not values.shape[0]:
            return
        mean = values.mean(0)
        deviations = values - mean
        self._add(values.shape[0], mean, deviations.T @ deviations)

    def merge(self, other: FeatureStatistics) -> None:
        """Add the statistics of another part of the data, such as another rank's."""
        if other.count:
            self._add(other.count, other.mean, other._scatter)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Count, mean and scatter, from which the same statistics can be made again."""
        return {"count": torch.tensor(self.count), "mean": self.mean, "scatter": self._scatter}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Become the statistics whose `state_dict` this is."""
        self.count, self.mean, self._scatter = int(state["count"]), state["mean"], state["scatter"]

    @property
    def covariance(self) -> torch.Tensor:
        """(F, F) unbiased covariance.

        Raises:
            UsageError: there are fewer than two samples.
        """
        if self.count < 2:
            raise UsageError(f"a covariance needs two or more pictures, not {self.count}")
        return self._scatter / (self.count - 1)

    def _add(self, count: int, mean: torch.Tensor, scatter: torch.Tensor) -> None:
        if not self.count:
            self.count, self.mean, self._scatter = count, mean.clone(), scatter.clone()
            return
        if mean.shape != self.mean.shape:
            raise UsageError(f"features are {mean.numel()} wide; the earlier ones were {self.mean.numel()}")
        total = self.count + count
        delta = mean - self.mean
        self._scatter = self._scatter + scatter + torch.outer(delta, delta) * (self.count * count / total)
        self.mean = self.mean + delta * (count / total)
        self.count = total


def frechet_distance(first: FeatureStatistics, second: FeatureStatistics) -> float:
    """Squared Frechet (2-Wasserstein) distance between the Gaussians of two feature sets.

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1^1/2 C2 C1^1/2)^1/2). The symmetric product has the eigenvalues of C1 C2
    and needs no square root of a non-symmetric matrix, so singular covariances (fewer pictures than
    features) take no special care.
    Source: Dowson and Landau 1982; Heusel et al. (arXiv:1706.08500), Eq. 6.

    Args:
        first: statistics of at least two samples.
        second: statistics of at least two samples, of the same width.

    Returns:
        A number of at least 0.

    Raises:
        UsageError: the widths differ or a set has fewer than two samples.
    """
    if first.mean.shape != second.mean.shape:
        raise UsageError(
            f"the two sets have {first.mean.numel()} and {second.mean.numel()} features; use one network"
        )
    root = _square_root(first.covariance)
    product = root @ second.covariance @ root
    overlap = torch.linalg.eigvalsh((product + product.T) / 2).clamp(min=0).sqrt().sum()
    spread = first.covariance.trace() + second.covariance.trace() - 2 * overlap
    return max(0.0, float((first.mean - second.mean).square().sum() + spread))


def _square_root(matrix: torch.Tensor) -> torch.Tensor:
    """The symmetric square root of a positive semi-definite matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T
