"""Rates and averages as functions of the step."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergevq.training.engine.config import OptimizerConfig
from mergevq.training.engine.schedules import average_decay, rate_factor


def test_step_schedule_falls_at_its_milestones():
    config = OptimizerConfig(schedule="step", warmup=10, milestones=(0.5, 0.75), gamma=0.1)
    factors = [rate_factor(config, step, 100) for step in (0, 4, 9, 49, 50, 74, 75, 99)]
    assert factors == pytest.approx([0.1, 0.5, 1, 1, 0.1, 0.1, 0.01, 0.01])


def test_cosine_ends_at_gamma():
    config = OptimizerConfig(schedule="cosine", warmup=0, gamma=0.02)
    assert rate_factor(config, 0, 100) == 1
    assert rate_factor(config, 50, 100) == pytest.approx(0.51)
    assert rate_factor(config, 100, 100) == pytest.approx(0.02)


@given(st.integers(0, 10**6), st.floats(0, 0.9999))
def test_average_never_exceeds_its_decay(step, decay):
    assert 0 <= average_decay(decay, step) <= decay
