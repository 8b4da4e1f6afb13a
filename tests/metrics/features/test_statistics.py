"""Feature sets: the sample is even and its size exact, and a stored set is the same set."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mergevq.metrics.features.statistics import FeatureSet


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=9), st.integers(1, 40))
def test_the_sample_is_even_whatever_the_batches(counts: list[int], most: int) -> None:
    total = sum(counts)
    numbers = torch.arange(total, dtype=torch.float32)[:, None]
    found = FeatureSet(total, most)
    for part in numbers.split(counts):
        found.update(part)
    kept = found.sample[:, 0]
    assert len(found) == total and len(kept) == min(total, most)
    gaps = kept.diff()
    assert not len(gaps) or (gaps.min() >= 1 and gaps.max() - gaps.min() <= 1)


def test_a_stored_set_is_the_same_set() -> None:
    found = FeatureSet(20, 7)
    found.update(torch.randn(20, 3))
    again = FeatureSet.from_state_dict(found.state_dict())
    assert len(again) == 20
    assert torch.equal(again.sample, found.sample)
    assert torch.equal(again.statistics.mean, found.statistics.mean)
    assert torch.equal(again.statistics.covariance, found.statistics.covariance)
