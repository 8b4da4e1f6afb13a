"""The merge in Triton: the members of every slot are listed, and each slot gathers its own.

Nothing is added atomically: sums run over the members in raster order, and are the same every time.

Legend: B batch, T tokens, D width, K slots.
"""

# mypy: disable-error-code="no-untyped-def"
# Kernels are in Triton's language, whose types Python does not know.

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch.autograd.function import once_differentiable

_COUNT = 64
"""Tokens in each direction of a tile of comparisons."""

_WIDTH = 1024
"""Features that a program deals with at a time."""


@triton.jit
def _list_members(assign, members, starts, tokens, slots, COUNT: tl.constexpr):
    """Tokens sorted by slot and then by position (B, T), and where each slot's begin (B, K + 1), by counting."""
    row = tl.program_id(1).to(tl.int64)
    token = tl.program_id(0) * COUNT + tl.arange(0, COUNT)  # at once the number of a slot
    mine = tl.load(assign + row * tokens + token, mask=token < tokens, other=0).to(tl.int32)
    place = tl.zeros((COUNT,), tl.int32)
    start = tl.zeros((COUNT,), tl.int32)
    for first in range(0, tokens, COUNT):
        other = first + tl.arange(0, COUNT)
        inside = (other < tokens)[None, :]
        taken = tl.load(assign + row * tokens + other, mask=other < tokens, other=0).to(tl.int32)[None, :]
        level = (taken == mine[:, None]) & (other[None, :] < token[:, None])
        place += tl.sum((((taken < mine[:, None]) | level) & inside).to(tl.int32), axis=1)
        start += tl.sum(((taken < token[:, None]) & inside).to(tl.int32), axis=1)
    tl.store(members + row * tokens + place, token, mask=token < tokens)
    tl.store(starts + row * (slots + 1) + token, start, mask=token <= slots)


@triton.jit
def _gather(
    x, size, members, starts, merged, total,
    tokens, slots, width, x_row, x_token, x_feature, size_row, size_token,
    WIDTH: tl.constexpr,
):  # fmt: skip
    """The weighted mean of one slot's members."""
    slot = tl.program_id(0)
    row = tl.program_id(1).to(tl.int64)
    feature = tl.program_id(2) * WIDTH + tl.arange(0, WIDTH)
    inside = feature < width
    summed = tl.zeros((WIDTH,), tl.float32)
    counted = tl.full((), 0.0, tl.float32)
    first = tl.load(starts + row * (slots + 1) + slot)
    for place in range(first, tl.load(starts + row * (slots + 1) + slot + 1)):
        token = tl.load(members + row * tokens + place)
        weight = tl.load(size + row * size_row + token * size_token).to(tl.float32)
        at = x + row * x_row + token.to(tl.int64) * x_token + feature * x_feature
        summed += tl.load(at, mask=inside, other=0.0).to(tl.float32) * weight
        counted += weight
    target = row * slots + slot
    tl.store(merged + target * width + feature, (summed / counted).to(merged.dtype.element_ty), mask=inside)
    if tl.program_id(2) == 0:
        tl.store(total + target, counted)


@triton.jit
def _spread(
    grad, size, assign, total, grad_x,
    tokens, slots, width, grad_row, grad_slot, grad_feature, size_row, size_token,
    WIDTH: tl.constexpr,
):  # fmt: skip
    """The gradient of one token: its slot's, by its share of the slot."""
    token = tl.program_id(0)
    row = tl.program_id(1).to(tl.int64)
    feature = tl.program_id(2) * WIDTH + tl.arange(0, WIDTH)
    slot = tl.load(assign + row * tokens + token)
    weight = tl.load(size + row * size_row + token * size_token).to(tl.float32)
    share = weight / tl.load(total + row * slots + slot)
    at = grad + row * grad_row + slot * grad_slot + feature * grad_feature
    found = tl.load(at, mask=feature < width, other=0.0).to(tl.float32) * share
    target = grad_x + (row * tokens + token) * width + feature
    tl.store(target, found.to(grad_x.dtype.element_ty), mask=feature < width)


class _Merge(torch.autograd.Function):
    """`merge` with its gradients in x and in size."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, size: torch.Tensor, assign: torch.Tensor, length: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        batch, tokens, width = x.shape
        assign = assign.contiguous()
        members = assign.new_empty(batch, tokens, dtype=torch.int32)
        starts = members.new_empty(batch, length + 1)
        merged = x.new_empty(batch, length, width)
        total = x.new_empty(batch, length, dtype=torch.float32)
        lists = (triton.cdiv(max(tokens, length + 1), _COUNT), batch)
        _list_members[lists](assign, members, starts, tokens, length, COUNT=_COUNT)
        block = min(_WIDTH, triton.next_power_of_2(width))
        _gather[(length, batch, triton.cdiv(width, block))](
            x, size, members, starts, merged, total,
            tokens, length, width, *x.stride(), *size.stride(), WIDTH=block,
        )  # fmt: skip
        kept = (x, merged) if ctx.needs_input_grad[1] else ()
        ctx.save_for_backward(size, assign, total, *kept)
        return merged, total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        grad, grad_total = grads
        size, assign, total, *kept = ctx.saved_tensors
        (batch, length, width), tokens = grad.shape, assign.shape[1]
        block = min(_WIDTH, triton.next_power_of_2(width))
        grad_x = grad.new_empty(batch, tokens, width)
        _spread[(tokens, batch, triton.cdiv(width, block))](
            grad, size, assign, total, grad_x,
            tokens, length, width, *grad.stride(), *size.stride(), WIDTH=block,
        )  # fmt: skip
        grad_size = _grad_size(grad, grad_total, assign, total, *kept) if kept else None
        return grad_x, None if grad_size is None else grad_size.to(size.dtype), None, None


def _grad_size(
    grad: torch.Tensor,
    grad_total: torch.Tensor,
    assign: torch.Tensor,
    total: torch.Tensor,
    x: torch.Tensor,
    merged: torch.Tensor,
) -> torch.Tensor:
    """(B, T): how far a token draws its slot's mean. No training asks for it."""
    rows = assign.unsqueeze(-1).expand(-1, -1, x.shape[-1])
    drawn = (x.float() - merged.float().gather(1, rows)) * grad.float().gather(1, rows)
    return drawn.sum(dim=-1) / total.gather(1, assign) + grad_total.gather(1, assign)


def merge(
    x: torch.Tensor, size: torch.Tensor, assign: torch.Tensor, length: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The operator: (B, T, D) tokens of sizes (B, T) to (B, length, D) and (B, length) float32."""
    merged, total = _Merge.apply(x, size, assign, length)
    return merged, total
