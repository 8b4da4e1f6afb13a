"""Merging on an NPU.

`bipartite_match` and `merge` have no implementation of their own: their references are comparisons,
minima, integer gathers and float32 matrix products, all of which run on the NPU. None of them sorts, or
scatters with a reduction: torch_npu does most of those on the host, without a word.
"""

from __future__ import annotations

import torch

from mergevq.backends.merging import recover


@recover.impl("npu", name="one_hot")
def recover_one_hot(tokens: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """`recover` as a product with a matrix of zeros and ones: exact, and so is its gradient's form.

    The reference gathers, which is not documented for bf16, and adds its gradient up by a scatter.
    """
    slot = torch.arange(tokens.shape[1], device=tokens.device)
    with torch.autocast(tokens.device.type, enabled=False):
        covers = (source.unsqueeze(-1) == slot).to(tokens.dtype)  # (B, L, K)
        return covers @ tokens
