"""The Inception Score, over whichever network: sure of each picture's class, and of all classes over many.

Class logits (N, C) in, mean and deviation over splits out. Only InceptionV3 makes it an Inception Score; the
caller knows the network and chooses the name.
"""

from __future__ import annotations

import numpy as np
import torch

from mergevq.errors import UsageError

SPLITS = 10


def class_score(logits: torch.Tensor, splits: int = SPLITS) -> tuple[float, float]:
    """exp of the mean divergence of a picture's classes from those of all pictures of its split.

    Pictures are shuffled in a fixed way first, as they may be sorted by class.

    Args:
        logits: (N, C) before softmax.
        splits: parts of nearly equal size; as many as there are pictures where those are fewer.

    Returns:
        Mean and population standard deviation over the splits; the mean lies in [1, C].

    Source: Salimans et al. 2016, "Improved Techniques for Training GANs" (arXiv:1606.03498), section 4.

    Raises:
        UsageError: there are no pictures.
    """
    if not len(logits):
        raise UsageError("a class score needs pictures; there are none")
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(logits)))
    scores = []
    for part in logits.cpu().double()[order].tensor_split(min(splits, len(logits))):
        log_classes = part.log_softmax(1)  # (n, C)
        log_marginal = log_classes.logsumexp(0) - np.log(len(part))  # (C,)
        divergence = (log_classes.exp() * (log_classes - log_marginal)).sum(1)  # (n,)
        scores.append(float(divergence.mean().exp()))
    return float(np.mean(scores)), float(np.std(scores))
