"""Attention on NVIDIA GPUs, beside what PyTorch does by itself.

The reference of `sized_attention` hands PyTorch a bias of shape (B, 1, 1, T). Its memory-efficient kernel reads
that as a view of stride zero (PyTorch pads the T numbers, and never the T x T), forward and backward, in
eager mode and under torch.compile; so it stays the default. What it cannot have with a bias is the flash
kernel, which takes none. "flash" moves the bias into the product of queries and keys: more arithmetic, a
faster kernel. FlexAttention would do as well, under torch.compile alone: in eager mode it builds T x T.

`decode_attention` reads every slot in the reference, valid or not, with one program a row and head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from mergevq.backends.attention import decode_attention, sized_attention
from mergevq.backends.cuda.checks import FLOATS, runs_triton, wants_gradient
from mergevq.backends.registry import OK, Reject, Verdict

_EXTRA = 8
"""Features added to each head: the flash kernel wants multiples of eight, and two are used."""

_WIDEST = 256
"""Features that a head may have in the flash kernel, and in ours."""


def _has_flash(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, log_size: torch.Tensor | None
) -> Verdict:
    """Accepts what the flash kernel takes once the bias is folded in."""
    if log_size is None:
        return Reject("without sizes the reference has the flash kernel already")
    if query.dtype not in (torch.float16, torch.bfloat16):
        return Reject(f"the flash kernel has no {query.dtype}")
    if query.shape[-1] % 8 or query.shape[-1] + _EXTRA > _WIDEST:
        width = query.shape[-1]
        return Reject(f"heads of {width}, a multiple of 8 up to {_WIDEST - _EXTRA} is needed")
    return OK


@sized_attention.impl("cuda", name="flash", when=_has_flash, on_request=True)
def sized_attention_flash(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, log_size: torch.Tensor
) -> torch.Tensor:
    """`sized_attention` without a bias: each query gains the features (1, 1), each key log s in two parts.

    The second part is what the rounding of the first leaves: log s has 16 bits, where a bias in bf16 has 8.
    """
    width = query.shape[-1]
    bias = log_size[:, None, :, None].float() * width**0.5  # (B, 1, T, 1): the scale divides again
    coarse = bias.to(key.dtype)
    fine = (bias - coarse.float()).to(key.dtype)
    ones = query.new_ones(1).expand(*query.shape[:-1], 2)
    heads = (*key.shape[:-1], 1)
    query = F.pad(torch.cat([query, ones], dim=-1), (0, _EXTRA - 2))  # (B, M, T, E + 8)
    key = F.pad(torch.cat([key, coarse.expand(heads), fine.expand(heads)], dim=-1), (0, _EXTRA - 2))
    out = F.scaled_dot_product_attention(query, key, F.pad(value, (0, _EXTRA)), scale=width**-0.5)
    return out[..., :width]


def _one_query(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, valid: torch.Tensor | None
) -> Verdict:
    """Accepts one query a row, at inference."""
    if query.shape[2] != 1:
        return Reject(f"{query.shape[2]} queries a row, the kernel takes one")
    if wants_gradient(query, key, value):
        return Reject("a gradient is wanted")
    if query.dtype not in FLOATS or not query.dtype == key.dtype == value.dtype:
        return Reject(f"{query.dtype}, {key.dtype} and {value.dtype}, one dtype of at most 32 bits is needed")
    if query.dtype == torch.float32 and torch.is_autocast_enabled("cuda"):
        return Reject("autocast lowers float32 first")
    if query.shape[-1] > _WIDEST:
        return Reject(f"heads of {query.shape[-1]}, at most {_WIDEST} fit")
    return runs_triton(query)


@decode_attention.impl("cuda", name="triton", when=_one_query, on_request=True)
def decode_attention_triton(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, valid: torch.Tensor | None
) -> torch.Tensor:
    """`decode_attention` that reads valid slots alone, a row's slots shared out over several programs."""
    from mergevq.backends.cuda import triton_decode

    return triton_decode.decode_attention(query, key, value, valid)
