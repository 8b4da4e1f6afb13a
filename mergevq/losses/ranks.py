"""A statistic of the global batch: this rank's mean in, the mean over all ranks out."""

from __future__ import annotations

import torch
import torch.distributed as dist


def mean_over_ranks(value: torch.Tensor) -> torch.Tensor:
    """The mean of `value` over the ranks; the value itself where training is not distributed.

    Args:
        value: any shape, the same on every rank, without gradient.

    Returns:
        The shape of `value`.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return value
    total = value.clone()
    # A sum divided here and not ReduceOp.AVG, which gloo does not offer.
    dist.all_reduce(total)
    return total / dist.get_world_size()
