"""Merging on NVIDIA GPUs without its quadratic intermediates; matching by comparison, sums by gathering.

The references multiply by one-hot matrices, T / D times the arithmetic of the additions that they stand for, and
write a handful of (even, odd) matrices. PyTorch's own way round, scatter_add, adds in an order that
changes from run to run.
"""

from __future__ import annotations

import torch

from mergevq.backends.cuda.checks import FLOATS, runs_triton
from mergevq.backends.merging import bipartite_match, merge
from mergevq.backends.registry import Reject, Verdict

_WIDEST = 128
"""Features on which similarity is measured, of which a program holds a tile of tokens."""


def _matchable(metric: torch.Tensor, merges: int, protected: int = 0) -> Verdict:
    if metric.dtype not in FLOATS:
        return Reject(f"{metric.dtype}, at most 32 bits are needed")
    if metric.shape[-1] > _WIDEST:
        return Reject(f"{metric.shape[-1]} features, at most {_WIDEST} fit")
    return runs_triton(metric)


@bipartite_match.impl("cuda", name="triton", when=_matchable, on_request=True)
def bipartite_match_triton(metric: torch.Tensor, merges: int, protected: int = 0) -> torch.Tensor:
    """`bipartite_match` in four kernels: norms, best partners, leaders, slots; always in full float32."""
    from mergevq.backends.cuda import triton_match

    return triton_match.bipartite_match(metric, merges, protected)


def _mergeable(x: torch.Tensor, size: torch.Tensor, assign: torch.Tensor, length: int) -> Verdict:
    if x.dtype not in FLOATS or size.dtype not in FLOATS:
        return Reject(f"{x.dtype} and {size.dtype}, at most 32 bits are needed")
    return runs_triton(x)


@merge.impl("cuda", name="triton", when=_mergeable, on_request=True)
def merge_triton(
    x: torch.Tensor, size: torch.Tensor, assign: torch.Tensor, length: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """`merge` that gathers the members of each slot, in raster order: the sums are the same every time."""
    from mergevq.backends.cuda import triton_merge

    return triton_merge.merge(x, size, assign, length)
