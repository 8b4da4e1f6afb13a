"""What changes over a run as a function of the step: the learning rate and the average."""

from __future__ import annotations

import math

from mergevq.training.engine.config import OptimizerConfig


def rate_factor(config: OptimizerConfig, step: int, steps: int) -> float:
    """The share of the base learning rate at an optimiser step.

    Args:
        config: schedule, warm-up, milestones, gamma.
        step: optimiser steps done so far.
        steps: optimiser steps of the whole run.
    """
    warm = min((step + 1) / config.warmup, 1.0) if config.warmup else 1.0
    progress = step / steps
    if config.schedule == "step":
        return warm * config.gamma ** sum(progress >= milestone for milestone in config.milestones)
    if config.schedule == "cosine":
        return warm * (config.gamma + (1 - config.gamma) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))))
    return warm


def average_decay(decay: float, step: int) -> float:
    """The decay of the weight average at a step: short at first, so that it forgets the random start."""
    return min(decay, (1 + step) / (10 + step))
