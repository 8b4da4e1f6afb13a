"""The Frechet distance against closed forms and scipy; statistics against all samples at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from mergevq.errors import UsageError
from mergevq.metrics.features.frechet import FeatureStatistics, frechet_distance


def statistics(features: np.ndarray) -> FeatureStatistics:
    found = FeatureStatistics()
    found.update(torch.from_numpy(features))
    return found


def samples(count: int, width: int, seed: int, scale: float = 1.0, shift: float = 0.0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    mixing = generator.normal(size=(width, width))
    return scale * generator.normal(size=(count, width)) @ mixing + shift


def test_distance_is_scipys() -> None:
    a, b = samples(300, 12, 0), samples(200, 12, 1, 1.7, 0.4)
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = sqrtm(first @ second).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(first + second - 2 * root)
    assert frechet_distance(statistics(a), statistics(b)) == pytest.approx(expected, rel=1e-9)


def test_distance_is_torchmetrics() -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance

    network = torch.nn.Flatten()
    network.num_features = 12
    metric = FrechetInceptionDistance(feature=network).set_dtype(torch.float64)
    a, b = samples(300, 12, 6), samples(200, 12, 7, 0.6, 0.2)
    metric.update(torch.from_numpy(a), real=True)
    metric.update(torch.from_numpy(b), real=False)
    assert frechet_distance(statistics(a), statistics(b)) == pytest.approx(float(metric.compute()), rel=1e-6)


def test_distance_of_diagonal_gaussians_has_a_closed_form() -> None:
    """Features that are whitened exactly, then scaled: sum of squared differences of mean and deviation."""
    centred = samples(500, 6, 2)
    centred -= centred.mean(0)
    white = centred @ np.linalg.inv(np.linalg.cholesky(np.cov(centred, rowvar=False))).T
    generator = np.random.default_rng(3)
    (da, db), (ma, mb) = generator.uniform(0.5, 3, (2, 6)), generator.normal(size=(2, 6))
    expected = ((ma - mb) ** 2).sum() + ((da - db) ** 2).sum()
    found = frechet_distance(statistics(white * da + ma), statistics(white * db + mb))
    assert found == pytest.approx(expected, rel=1e-10)


def test_fewer_samples_than_features_is_finite_and_right() -> None:
    a, b = samples(5, 20, 4), samples(6, 20, 5)
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    values = np.linalg.eigvals(first @ second).real.clip(min=0)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(first + second) - 2 * np.sqrt(values).sum()
    assert frechet_distance(statistics(a), statistics(b)) == pytest.approx(expected, rel=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 40), st.integers(1, 8))
def test_equal_sets_are_at_distance_zero_and_others_symmetric(seed: int, count: int, width: int) -> None:
    a, b = statistics(samples(count, width, seed)), statistics(samples(count, width, seed + 1, 2.0))
    scale = float(a.covariance.trace() + b.covariance.trace())
    assert 0 <= frechet_distance(a, a) <= 1e-6 * scale
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), abs=1e-6 * scale)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=2, max_size=6), st.integers(0, 1000))
def test_batches_and_ranks_merge_to_all_at_once(counts: list[int], seed: int) -> None:
    """Far from zero, where a sum of squares would lose the variance."""
    features = samples(sum(counts), 4, seed, shift=1e6)
    parts = np.split(features, np.cumsum(counts)[:-1])
    running, merged = FeatureStatistics(), FeatureStatistics()
    for part in parts:
        running.update(torch.from_numpy(part))
        merged.merge(statistics(part))
    for found in (running, merged):
        assert found.count == len(features)
        np.testing.assert_allclose(found.mean.numpy(), features.mean(0), rtol=1e-12)
        expected = np.cov(features, rowvar=False)
        np.testing.assert_allclose(found.covariance.numpy(), expected, rtol=1e-6, atol=1e-6)


def test_merging_leaves_the_other_part_alone() -> None:
    other, features = statistics(samples(5, 3, 0)), samples(5, 3, 1)
    mean, covariance = other.mean.clone(), other.covariance.clone()
    empty = FeatureStatistics()
    empty.merge(other)
    empty.update(torch.from_numpy(features))
    empty.merge(FeatureStatistics())
    assert empty.count == 10
    assert torch.equal(other.mean, mean)
    assert torch.equal(other.covariance, covariance)


def test_half_precision_features_are_summed_in_double() -> None:
    found = FeatureStatistics()
    found.update(torch.randn(8, 3).bfloat16())
    assert found.mean.dtype == found.covariance.dtype == torch.float64


def test_unusable_features_are_refused() -> None:
    found = statistics(samples(1, 3, 0))
    with pytest.raises(UsageError, match="two or more pictures, not 1"):
        frechet_distance(found, found)
    with pytest.raises(UsageError, match="4 wide; the earlier ones were 3"):
        found.update(torch.zeros(2, 4))
    with pytest.raises(UsageError, match="NaN"):
        found.update(torch.tensor([[0.0, float("nan"), 1.0]]))
    with pytest.raises(UsageError, match="3 and 4 features"):
        frechet_distance(statistics(samples(3, 3, 0)), statistics(samples(3, 4, 0)))
