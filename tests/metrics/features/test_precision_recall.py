"""Precision and recall against a brute-force count, and over sets whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from mergevq.errors import UsageError
from mergevq.metrics.features.precision_recall import precision_recall


def brute_force(generated: np.ndarray, real: np.ndarray, neighbours: int) -> tuple[float, float]:
    def covered(points: np.ndarray, manifold: np.ndarray) -> float:
        between = cdist(manifold, manifold)
        radii = [np.sort(np.delete(row, place))[neighbours - 1] for place, row in enumerate(between)]
        inside = [any(d <= r for d, r in zip(row, radii, strict=True)) for row in cdist(points, manifold)]
        return float(np.mean(inside))

    return covered(generated, real), covered(real, generated)


@settings(max_examples=30, deadline=None)
@given(st.integers(5, 40), st.integers(5, 40), st.integers(1, 4), st.integers(1, 50), st.integers(0, 999))
def test_the_count_is_that_of_brute_force(count: int, others: int, k: int, chunk: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    generated = generator.normal(0.3, 0.8, (count, 3)).astype(np.float32)
    real = generator.normal(0.0, 1.0, (others, 3)).astype(np.float32)
    found = precision_recall(torch.from_numpy(generated), torch.from_numpy(real), k, chunk)
    expected = brute_force(generated.astype(np.float64), real.astype(np.float64), k)
    assert found == pytest.approx(expected, abs=1e-12)


def test_sets_with_known_answers() -> None:
    real = torch.randn(60, 4)
    assert precision_recall(real.clone(), real) == (1.0, 1.0)
    assert precision_recall(real + 1e3, real) == (0.0, 0.0)
    one_mode = real[:1] + 1e-3 * torch.randn(60, 4)  # good pictures, all alike
    precision, recall = precision_recall(one_mode, real)
    assert precision == 1.0 and recall <= 2 / 60


def test_copies_of_one_picture_are_neighbours_of_each_other() -> None:
    """Far from zero, where distances over a product of matrices would not be exactly zero."""
    same = torch.full((6, 5), 1234.567)
    assert precision_recall(same, same.clone()) == (1.0, 1.0)
    assert precision_recall(same, same + 0.001) == (0.0, 0.0)


def test_too_few_and_unequal_features_are_refused() -> None:
    with pytest.raises(UsageError, match="need 4 pictures or more in each set; there are 3 generated and 9"):
        precision_recall(torch.zeros(3, 2), torch.zeros(9, 2))
    with pytest.raises(UsageError, match="2 and 3 features"):
        precision_recall(torch.zeros(9, 2), torch.zeros(9, 3))
