"""The distribution over the codes of a few bits, and its gradient, in Triton.

A code's probability is the product of one logistic function a bit. It is written once; the backward pass
computes it anew from the logits instead of keeping it.

Legend: n tokens, b bits.
"""

# mypy: disable-error-code="no-untyped-def"
# Kernels are in Triton's language, whose types Python does not know.

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch.autograd.function import once_differentiable

_ELEMENTS = 4096
"""Probabilities that a program holds."""


@triton.jit
def _logistic(logit):
    return 1.0 / (1.0 + tl.exp(-logit))


@triton.jit
def _probabilities(
    logits, row, inside, code, row_stride, bit_stride,
    BITS: tl.constexpr, CODES: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """(ROWS, CODES): bit i of a code is set with probability logistic(logits[i])."""
    found = tl.full((ROWS, CODES), 1.0, tl.float32)
    for bit in tl.static_range(BITS):
        logit = tl.load(logits + row * row_stride + bit * bit_stride, mask=inside, other=0.0)[:, None]
        found *= tl.where(((code >> bit) & 1)[None, :] == 1, _logistic(logit), _logistic(-logit))
    return found


@triton.jit
def _distribute(
    logits, out, tokens, row_stride, bit_stride,
    BITS: tl.constexpr, CODES: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = row < tokens
    code = tl.arange(0, CODES)
    found = _probabilities(logits, row, inside, code, row_stride, bit_stride, BITS, CODES, ROWS)
    tl.store(out + row[:, None] * CODES + code[None, :], found, mask=inside[:, None])


@triton.jit
def _gradient(
    logits, grad, out, tokens, row_stride, bit_stride, grad_row, grad_code,
    BITS: tl.constexpr, CODES: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = row < tokens
    code = tl.arange(0, CODES)
    found = _probabilities(logits, row, inside, code, row_stride, bit_stride, BITS, CODES, ROWS)
    at = grad + row[:, None] * grad_row + code[None, :] * grad_code
    found *= tl.load(at, mask=inside[:, None], other=0.0)
    for bit in tl.static_range(BITS):
        logit = tl.load(logits + row * row_stride + bit * bit_stride, mask=inside, other=0.0)
        is_set = ((code >> bit) & 1)[None, :] == 1
        # Two sums, either of which is small where its bit is unlikely: their difference does not cancel.
        on = tl.sum(tl.where(is_set, found, 0.0), axis=1) * _logistic(-logit)
        off = tl.sum(tl.where(is_set, 0.0, found), axis=1) * _logistic(logit)
        tl.store(out + row * BITS + bit, on - off, mask=inside)


class _HalfDistribution(torch.autograd.Function):
    """Logits (n, b) to probabilities (n, 2^b)."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor) -> torch.Tensor:
        tokens, bits = logits.shape
        ctx.save_for_backward(logits)
        codes = 2**bits
        out = logits.new_empty(tokens, codes)
        rows = max(1, _ELEMENTS // codes)
        grid = (triton.cdiv(tokens, rows),)
        _distribute[grid](logits, out, tokens, *logits.stride(), BITS=bits, CODES=codes, ROWS=rows)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        (grad,), (logits,) = grads, ctx.saved_tensors
        tokens, bits = logits.shape
        out = logits.new_empty(tokens, bits)
        codes = 2**bits
        rows = max(1, _ELEMENTS // codes)
        _gradient[(triton.cdiv(tokens, rows),)](
            logits, grad, out, tokens, *logits.stride(), *grad.stride(), BITS=bits, CODES=codes, ROWS=rows
        )
        return out


def half_distribution(logits: torch.Tensor) -> torch.Tensor:
    """The distribution over the codes of a few independent bits.

    Args:
        logits: (n, b) float32; b from 1 to 12.

    Returns:
        (n, 2^b) float32; bit i of a code is dimension i.
    """
    return _HalfDistribution.apply(logits)
