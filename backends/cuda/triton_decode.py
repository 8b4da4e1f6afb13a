"""Attention of one query a row to the valid slots of a cache, in Triton.

The slots of a row and head are shared out over several programs where there are few rows: each keeps a
running maximum and sum, and a second kernel puts them together. A block of slots none of which is valid is not read.

Source: Flash-Decoding, the split of FlashAttention (arXiv:2205.14135) over the keys.
"""

# mypy: disable-error-code="no-untyped-def"
# Kernels are in Triton's language, whose types Python does not know.

from __future__ import annotations

import torch
import triton
import triton.language as tl

_BLOCK = 64
"""Slots that a program deals with at a time."""

_PROGRAMS = 256
"""Programs that keep a GPU busy: about two for each multiprocessor of an A100 or H100."""


@triton.jit
def _attend(
    query, key, value, valid, out, statistics,
    heads, slots, width, chunk, scale,
    query_row, query_head, query_feature,
    key_row, key_head, key_slot, key_feature,
    value_row, value_head, value_slot, value_feature,
    valid_row, valid_slot,
    MASKED: tl.constexpr, WHOLE: tl.constexpr, BLOCK: tl.constexpr, FEATURES: tl.constexpr,
):  # fmt: skip
    """One chunk of the slots of one row and head: their weighted mean, the top score and the sum of the weights."""
    row = (tl.program_id(0) // heads).to(tl.int64)
    head = tl.program_id(0) % heads
    feature = tl.arange(0, FEATURES)
    inside = feature < width
    at = query + row * query_row + head * query_head + feature * query_feature
    asked = tl.load(at, mask=inside, other=0.0).to(tl.float32) * scale
    keys = key + row * key_row + head * key_head + feature[None, :] * key_feature
    values = value + row * value_row + head * value_head + feature[None, :] * value_feature
    top = tl.full((), float("-inf"), tl.float32)
    total = tl.full((), 0.0, tl.float32)
    mixed = tl.zeros((FEATURES,), tl.float32)
    first = tl.program_id(1) * chunk
    for start in range(first, tl.minimum(first + chunk, slots), BLOCK):
        slot = start + tl.arange(0, BLOCK)
        seen = slot < slots
        if MASKED:
            seen = seen & (tl.load(valid + row * valid_row + slot * valid_slot, mask=seen, other=0) != 0)
        if tl.max(seen.to(tl.int32), axis=0) > 0:
            tile = seen[:, None] & inside[None, :]
            known = tl.load(keys + slot[:, None] * key_slot, mask=tile, other=0.0).to(tl.float32)
            score = tl.where(seen, tl.sum(known * asked[None, :], axis=1), float("-inf"))
            highest = tl.maximum(top, tl.max(score, axis=0))
            weight = tl.exp(score - highest)
            fade = tl.exp(top - highest)
            held = tl.load(values + slot[:, None] * value_slot, mask=tile, other=0.0).to(tl.float32)
            mixed = mixed * fade + tl.sum(held * weight[:, None], axis=0)
            total = total * fade + tl.sum(weight, axis=0)
            top = highest
    mixed = mixed / tl.where(total > 0, total, 1.0)
    part = tl.program_id(0).to(tl.int64) * tl.num_programs(1) + tl.program_id(1)
    tl.store(out + part * width + feature, mixed.to(out.dtype.element_ty), mask=inside)
    if not WHOLE:
        tl.store(statistics + 2 * part, top)
        tl.store(statistics + 2 * part + 1, total)


@triton.jit
def _combine(parts, statistics, out, splits, width, SPLITS: tl.constexpr, FEATURES: tl.constexpr):
    """The chunks of one row and head, each with the weight that it deserves."""
    row = tl.program_id(0).to(tl.int64)
    split = tl.arange(0, SPLITS)
    feature = tl.arange(0, FEATURES)
    some = split < splits
    top = tl.load(statistics + 2 * (row * splits + split), mask=some, other=float("-inf"))
    total = tl.load(statistics + 2 * (row * splits + split) + 1, mask=some, other=0.0)
    # A chunk without a valid slot has total 0 and top -inf, and so may all of them: no -inf less -inf.
    weight = tl.where(total > 0, total * tl.exp(top - tl.maximum(tl.max(top, axis=0), -1e30)), 0.0)
    at = parts + (row * splits + split[:, None]) * width + feature[None, :]
    mixed = tl.load(at, mask=some[:, None] & (feature < width)[None, :], other=0.0)
    whole = tl.sum(weight, axis=0)
    mean = tl.sum(mixed * weight[:, None], axis=0) / tl.where(whole > 0, whole, 1.0)
    tl.store(out + row * width + feature, mean.to(out.dtype.element_ty), mask=feature < width)


def decode_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, valid: torch.Tensor | None
) -> torch.Tensor:
    """The operator for one query a row; a row without a valid slot gives zeros.

    Args:
        query: (B, M, 1, E), any strides, as are those of the others.
        key: (B, M, S, E).
        value: (B, M, S, E).
        valid: (1 or B, 1, S) bool; None: all.

    Returns:
        (B, M, 1, E) in the dtype of `query`.
    """
    rows, heads, _, width = query.shape
    slots = key.shape[2]
    features = triton.next_power_of_2(width)
    blocks = triton.cdiv(slots, _BLOCK)
    chunk = triton.cdiv(blocks, min(blocks, max(1, _PROGRAMS // (rows * heads)))) * _BLOCK
    splits = triton.cdiv(slots, chunk)
    out = query.new_empty(rows, heads, 1, width)
    parts = out if splits == 1 else out.new_empty(rows * heads, splits, width, dtype=torch.float32)
    statistics = out if splits == 1 else parts.new_empty(rows * heads, splits, 2)
    mask = query if valid is None else valid
    _attend[(rows * heads, splits)](
        query, key, value, mask, parts, statistics,
        heads, slots, width, chunk, width**-0.5,
        query.stride(0), query.stride(1), query.stride(3),
        *key.stride(), *value.stride(),
        0 if mask.shape[0] == 1 else mask.stride(0), mask.stride(-1),
        MASKED=valid is not None, WHOLE=splits == 1, BLOCK=_BLOCK, FEATURES=features,
    )  # fmt: skip
    if splits > 1:
        chunks = triton.next_power_of_2(splits)
        _combine[(rows * heads,)](parts, statistics, out, splits, width, SPLITS=chunks, FEATURES=features)
    return out
