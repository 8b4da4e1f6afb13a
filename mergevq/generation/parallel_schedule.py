"""How many tokens of rand_ar are decoded at a time. Needs no PyTorch."""

from __future__ import annotations

import math

from mergevq.errors import UsageError


def parallel_schedule(tokens: int, steps: int) -> list[int]:
    """How many tokens each pass decodes: one in the first, more and more towards the end.

    After pass t of T, counted from 0, min(K, floor(K (1 - cos(pi/2 (t + 1)/T)) + 1)) tokens are there, at least one
    more than before, and all at the end; but after the first of several passes one.

    Args:
        tokens: K.
        steps: T, between 1 and K.

    Returns:
        T positive integers that sum to K.

    Raises:
        UsageError: T is not between 1 and K.

    Source: RandAR (arXiv:2412.01827), Section 3.3, and its released code for the first pass; MergeVQ
    (arXiv:2504.00999), Table A2, "Arccos".
    """
    if not 1 <= steps <= tokens:
        raise UsageError(f"{tokens} tokens cannot be decoded in {steps} steps; give between 1 and {tokens}")
    counts, done = [], 0
    for step in range(steps):
        target = int(tokens * (1 - math.cos(math.pi / 2 * (step + 1) / steps)) + 1) if step else 1
        later = steps - step - 1  # each of which needs a token too
        count = tokens - done if not later else max(1, min(target, tokens - later) - done)
        counts.append(count)
        done += count
    return counts
