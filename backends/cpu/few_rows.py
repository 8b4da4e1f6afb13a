"""Linear layers for passes of a few rows, as in generation, where reading the weights is what takes time.

oneDNN multiplies by a weight in its own order faster. With two threads the layers of size B took 19.4 ms in the place
of 28.0 for 8 rows, 32.1 in the place of 38.0 for 32 (float32), and 8.0 in the place of 12.3 for one row (bfloat16).
From 128 rows on it makes no difference. The operators are those that torch.compile uses where weights are constant.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

MOST = 64
"""Rows; with more of them arithmetic is the limit, and the order of the weights is of no account."""


def pays(module: nn.Module, rows: int) -> bool:
    """Whether passes of so many rows through a module are faster with weights in another order."""
    if not torch.backends.mkldnn.is_available() or rows > MOST:
        return False
    dtypes = {parameter.dtype for parameter in module.parameters()}
    if dtypes == {torch.float32}:
        return rows > 1  # a single one PyTorch's own product takes as fast
    return dtypes == {torch.bfloat16} and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def reordered(module: nn.Module, rows: int) -> nn.Module:
    """A copy of a module that shares everything with it but the weights of linear layers.

    Args:
        module: on the CPU; it is not changed.
        rows: of the passes for which the order is chosen.
    """
    if type(module) is nn.Linear:
        return _ReorderedLinear(module, rows)
    twin = copy.copy(module)
    twin.__dict__["_modules"] = {
        name: None if child is None else reordered(child, rows) for name, child in module._modules.items()
    }
    return twin


class _ReorderedLinear(nn.Linear):
    """A linear layer that multiplies by its weight in oneDNN's order."""

    def __init__(self, linear: nn.Linear, rows: int):
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight = linear.weight
        self.bias = linear.bias
        self._reordered = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), rows)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., D) to (..., D')."""
        return torch.ops.mkldnn._linear_pointwise(x, self._reordered, self.bias, "none", [], "")
