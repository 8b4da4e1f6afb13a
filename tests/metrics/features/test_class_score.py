"""The class score by hand, against torchmetrics' Inception Score, and at its bounds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mergevq.errors import UsageError
from mergevq.metrics.features.class_score import class_score


def test_two_pictures_by_hand() -> None:
    """Classes (3/4, 1/4) and (1/4, 3/4): each diverges from (1/2, 1/2) by 3/4 ln 3/2 + 1/4 ln 1/2."""
    logits = torch.tensor([[3.0, 1.0], [1.0, 3.0]], dtype=torch.float64).log()
    expected = math.exp(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert class_score(logits, splits=1) == pytest.approx((expected, 0.0), rel=1e-12)


@pytest.mark.filterwarnings("ignore:Metric `InceptionScore` will save all:UserWarning")
def test_the_score_is_torchmetrics(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same shuffle is given to both; theirs is the deviation of a sample, ours that of the splits."""
    from torchmetrics.image.inception import InceptionScore

    logits = torch.randn(400, 7) * 2
    order = torch.from_numpy(np.random.default_rng(0).permutation(400))
    monkeypatch.setattr(torch, "randperm", lambda count: order)
    metric = InceptionScore(feature=nn.Flatten(), splits=10)
    metric.update(logits)
    mean, deviation = metric.compute()
    assert class_score(logits) == pytest.approx((float(mean), float(deviation) * math.sqrt(0.9)), rel=1e-5)


def test_mean_and_deviation_are_over_the_splits() -> None:
    logits = torch.randn(103, 5)
    order = np.random.default_rng(0).permutation(103)
    scores = []
    for rows in np.array_split(order, 10):
        p = torch.softmax(logits[rows].double(), 1).numpy()
        marginal = p.mean(0)
        scores.append(np.exp((p * np.log(p / marginal)).sum(1).mean()))
    assert class_score(logits) == pytest.approx((np.mean(scores), np.std(scores)), rel=1e-10)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(2, 8), st.floats(0, 200), st.integers(0, 999))
def test_the_score_lies_between_one_and_the_number_of_classes(
    count: int, classes: int, scale: float, seed: int
) -> None:
    logits = scale * torch.randn(count, classes, generator=torch.Generator().manual_seed(seed))
    mean, deviation = class_score(logits)
    assert 1 - 1e-9 <= mean <= classes + 1e-9 and deviation >= 0


def test_sure_and_even_pictures_reach_the_bound_and_equal_ones_do_not() -> None:
    sure = 1e4 * torch.eye(4).repeat(25, 1)
    assert class_score(sure, splits=1)[0] == pytest.approx(4.0)
    assert class_score(sure[:1].expand(100, 4)) == pytest.approx((1.0, 0.0))


def test_no_pictures_have_no_score() -> None:
    with pytest.raises(UsageError, match="there are none"):
        class_score(torch.empty(0, 3))
