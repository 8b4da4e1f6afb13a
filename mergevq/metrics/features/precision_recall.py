"""Improved precision and recall: how much of one set of features lies within the other's manifold.

Two sets of features in, two shares out. A set's manifold is the union of balls around its features, each
reaching to the k-th nearest other feature. Differences are taken before they are squared, in float64 and in
chunks: the shorter way over a matrix product loses small distances to rounding. The cost grows with the
product of the two sets, so large ones are thinned before.

Legend: N generated, M real, F features.
"""

from __future__ import annotations

import torch

from mergevq.errors import UsageError

NEIGHBOURS = 3
"""k of the paper."""


def precision_recall(
    generated: torch.Tensor, real: torch.Tensor, neighbours: int = NEIGHBOURS, chunk: int = 1000
) -> tuple[float, float]:
    """Shares of the generated set within the real manifold, and of the real set within the generated one.

    Args:
        generated: (N, F).
        real: (M, F).
        neighbours: k, below N and M.
        chunk: rows of a distance matrix held at once.

    Returns:
        Precision (quality) and recall (variety), both in [0, 1].

    Source: Kynkaanniemi et al. 2019, "Improved Precision and Recall Metric for Assessing Generative Models"
        (arXiv:1904.06991), Eq. 1 and 2.

    Raises:
        UsageError: a set has no k neighbours, or the widths differ.
    """
    if generated.shape[1] != real.shape[1]:
        raise UsageError(
            f"the two sets have {generated.shape[1]} and {real.shape[1]} features; use one network"
        )
    fewest = min(len(generated), len(real))
    if fewest <= neighbours:
        raise UsageError(
            f"precision and recall with {neighbours} neighbours need {neighbours + 1} pictures or more in "
            f"each set; there are {len(generated)} generated and {len(real)} real ones"
        )
    generated, real = generated.cpu().double(), real.cpu().double()
    generated_radii, real_radii = _radii(generated, neighbours, chunk), _radii(real, neighbours, chunk)
    precise = 0
    recalled = torch.zeros(len(real), dtype=torch.bool)
    for features, radii in zip(generated.split(chunk), generated_radii.split(chunk), strict=True):
        distances = _distances(features, real)  # (n, M)
        precise += int((distances <= real_radii).any(1).sum())
        recalled |= (distances <= radii[:, None]).any(0)
    return precise / len(generated), float(recalled.double().mean())


def _radii(features: torch.Tensor, neighbours: int, chunk: int) -> torch.Tensor:
    """(N,) distances to the k-th nearest feature; a feature is no neighbour of itself, its copies are."""
    radii = []
    for start in range(0, len(features), chunk):
        distances = _distances(features[start : start + chunk], features)  # (n, N)
        distances[torch.arange(len(distances)), torch.arange(start, start + len(distances))] = torch.inf
        radii.append(distances.kthvalue(neighbours, dim=1).values)
    return torch.cat(radii)


def _distances(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")
