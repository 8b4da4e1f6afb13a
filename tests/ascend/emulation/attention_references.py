"""The fused attention of torch_npu, with its matrix of all pairs written out.

    npu_fusion_attention             softmax(mask(scale * (Q K^T + pse))) V, in training
    npu_fused_infer_attention_score  softmax(mask(scale * Q K^T)) V, in inference

In a mask, true means: not seen. Where a row sees nothing the vendor's results are not documented, so it is refused.

Source: the documents of op-plugin, torch_npu-npu_fusion_attention and torch_npu-npu_fused_infer_attention_score.
Legend: B batch, N heads, S queries, T keys, D head width.
"""

from __future__ import annotations

from typing import Any

import torch

from emulation.documents import FLOATS, require

_STATISTICS = 8
"""How often the kernel repeats the maximum and the sum of each row."""
_CAUSAL = 2
_CAUSAL_SIDE = 2048


def _scores(
    query: torch.Tensor, key: torch.Tensor, pse: torch.Tensor | None, mask: torch.Tensor | None, scale: float
) -> torch.Tensor:
    """(B, N, S, T) in float32, of tensors in BNSD."""
    scores = query.float() @ key.float().transpose(-1, -2)
    if pse is not None:
        scores = scores + pse.float()
    scores = scores * scale
    if mask is None:
        return scores
    seen = ~mask.bool()
    require(bool(seen.any(dim=-1).all()), "a query that sees no key")
    return scores.masked_fill(~seen, float("-inf"))


def _check_training(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    heads: int,
    pse: torch.Tensor | None,
    mask: torch.Tensor | None,
    sparse_mode: int,
) -> None:
    batch, count, queries, width = query.shape
    keys = key.shape[2]
    require(
        query.dtype in FLOATS and query.dtype == key.dtype == value.dtype, "dtypes of query, key and value"
    )
    require(heads == count and 1 <= count <= 256 and 1 <= width <= 768, f"{count} heads of width {width}")
    require(key.shape == value.shape and count % key.shape[1] == 0, "shapes of key and value")
    require(sparse_mode in (0, _CAUSAL), f"sparse_mode {sparse_mode} is not emulated")
    if pse is not None:
        allowed = {(batch, count, queries, keys), (batch, count, 1, keys), (1, count, queries, keys)}
        require(pse.dtype == query.dtype, f"pse is {pse.dtype} and the query {query.dtype}")
        require(tuple(pse.shape) in allowed, f"pse is {tuple(pse.shape)}; BNST, BN1T and 1NST are allowed")
    if mask is not None:
        allowed = {(batch, count), (batch, 1), (1, 1)}
        pairs = (_CAUSAL_SIDE, _CAUSAL_SIDE) if sparse_mode == _CAUSAL else (queries, keys)
        require(mask.dtype in (torch.bool, torch.uint8), f"the mask is {mask.dtype}")
        fits = mask.dim() == 2 or tuple(mask.shape[:-2]) in allowed
        require(
            fits and tuple(mask.shape[-2:]) == pairs, f"the mask is {tuple(mask.shape)} for {pairs} pairs"
        )


def _cut(mask: torch.Tensor | None, queries: int, keys: int) -> torch.Tensor | None:
    """The part of a mask that counts: the causal one comes in one size for all."""
    return None if mask is None else mask[..., :queries, :keys]


def _in_bnsd(layout: str, *tensors: torch.Tensor) -> list[torch.Tensor]:
    require(layout in ("BNSD", "BSND"), f"layout {layout} is not emulated")
    return [tensor.transpose(1, 2) if layout == "BSND" else tensor for tensor in tensors]


def _forward(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    head_num: int,
    input_layout: str,
    pse: torch.Tensor | None = None,
    padding_mask: torch.Tensor | None = None,
    atten_mask: torch.Tensor | None = None,
    scale: float = 1.0,
    keep_prob: float = 1.0,
    pre_tockens: int = 2**31 - 1,
    next_tockens: int = 2**31 - 1,
    inner_precise: int = 0,
    prefix: Any = None,
    actual_seq_qlen: Any = None,
    actual_seq_kvlen: Any = None,
    sparse_mode: int = 0,
    *_: Any,
    **__: Any,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Output, maximum and sum of each row, and an empty tensor."""
    require(
        keep_prob == 1 and padding_mask is None and prefix is None,
        "dropout, padding or prefix (not emulated)",
    )
    require(
        actual_seq_qlen is None and actual_seq_kvlen is None, "sequences of several lengths (not emulated)"
    )
    queries, keys, values = _in_bnsd(input_layout, query, key, value)
    _check_training(queries, keys, values, head_num, pse, atten_mask, sparse_mode)
    groups = queries.shape[1] // keys.shape[1]
    wide_keys, wide_values = (each.repeat_interleave(groups, dim=1) for each in (keys, values))
    mask = _cut(atten_mask, queries.shape[2], keys.shape[2])
    scores = _scores(queries, wide_keys, pse, mask, scale)
    largest = scores.amax(dim=-1, keepdim=True)
    weights = (scores - largest).exp()
    total = weights.sum(dim=-1, keepdim=True)
    output = (weights / total) @ wide_values.float()
    (output,) = _in_bnsd(input_layout, output)
    repeated = (each.expand(*each.shape[:-1], _STATISTICS).contiguous() for each in (largest, total))
    return output.to(query.dtype).contiguous(), *repeated, torch.empty(0, dtype=query.dtype)


def fusion_attention(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
    return *_forward(*args, **kwargs), 0, 0, 0


def fusion_attention_v3(*args: Any, **kwargs: Any) -> tuple[torch.Tensor, ...]:
    return *_forward(*args, **kwargs), torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)


def fusion_attention_grad(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    dy: torch.Tensor,
    head_num: int,
    input_layout: str,
    *,
    pse: torch.Tensor | None = None,
    padding_mask: torch.Tensor | None = None,
    atten_mask: torch.Tensor | None = None,
    softmax_max: torch.Tensor | None = None,
    softmax_sum: torch.Tensor | None = None,
    softmax_in: torch.Tensor | None = None,
    attention_in: torch.Tensor | None = None,
    scale_value: float = 1.0,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """By the formula of the softmax's gradient; the weights are computed anew, and not from the statistics."""
    queries, keys, values, given = (each.float() for each in _in_bnsd(input_layout, query, key, value, dy))
    groups = queries.shape[1] // keys.shape[1]
    wide_keys, wide_values = (each.repeat_interleave(groups, dim=1) for each in (keys, values))
    mask = _cut(atten_mask, queries.shape[2], keys.shape[2])
    weights = _scores(queries, wide_keys, pse, mask, scale_value).softmax(dim=-1)
    of_weights = given @ wide_values.transpose(-1, -2)
    of_scores = weights * (of_weights - (of_weights * weights).sum(dim=-1, keepdim=True)) * scale_value
    of_values, of_keys = weights.transpose(-1, -2) @ given, of_scores.transpose(-1, -2) @ queries
    of_keys, of_values = (each.unflatten(1, (-1, groups)).sum(dim=2) for each in (of_keys, of_values))
    of_pse = None if pse is None else of_scores.sum_to_size(pse.shape).to(query.dtype)
    found = _in_bnsd(input_layout, of_scores @ wide_keys, of_keys, of_values)
    return *(each.to(query.dtype).contiguous() for each in found), of_pse, torch.empty(0)


def fusion_attention_grad_v3(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
    return fusion_attention_grad(*args, **kwargs)


def _check_inference(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, heads: int, mask: torch.Tensor | None
) -> None:
    batch, count, queries, width = query.shape
    keys = key.shape[2]
    allowed_dtypes = (torch.float16, torch.bfloat16)
    require(
        query.dtype in allowed_dtypes and query.dtype == key.dtype == value.dtype, "dtypes other than 16 bit"
    )
    require(all(each.is_contiguous() for each in (query, key, value)), "a query, key or value with gaps")
    require(heads == count <= 256 and batch <= 65536, f"{heads} heads for a query of {tuple(query.shape)}")
    require(width <= 512 and width % 16 == 0, f"heads of width {width}; a multiple of 16 is wanted")
    require(key.shape == value.shape and key.shape[0] == batch, "shapes of key and value")
    if mask is not None:
        pairs = {(batch, 1, queries, keys), (1, 1, queries, keys), (batch, queries, keys), (1, queries, keys)}
        pairs |= {(batch, keys)} if queries == 1 else {(queries, keys)}
        require(mask.dtype in (torch.bool, torch.int8, torch.uint8), f"the mask is {mask.dtype}")
        require(mask.is_contiguous() and tuple(mask.shape) in pairs, f"the mask is {tuple(mask.shape)}")


def fused_infer_attention_score(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    atten_mask: torch.Tensor | None = None,
    num_heads: int = 1,
    scale: float = 1.0,
    pre_tokens: int = 2**31 - 1,
    next_tokens: int = 2**31 - 1,
    input_layout: str = "BSH",
    num_key_value_heads: int = 0,
    inner_precise: int = 0,
    **others: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    given = sorted(name for name, setting in others.items() if setting not in (None, 0, False))
    require(not given, f"{', '.join(given)} (not emulated)")
    require(input_layout == "BNSD", f"layout {input_layout} (not emulated)")
    _check_inference(query, key, value, num_heads, atten_mask)
    require(num_key_value_heads in (0, key.shape[1]), "num_key_value_heads is not the keys'")
    groups = num_heads // key.shape[1]
    wide_keys, wide_values = (each.repeat_interleave(groups, dim=1) for each in (key, value))
    mask = atten_mask
    if mask is not None and mask.dim() < 4:
        mask = mask.reshape(-1, 1, query.shape[2], key.shape[2])
    weights = _scores(query, wide_keys, None, mask, scale).softmax(dim=-1)
    return (weights @ wide_values.float()).to(query.dtype), torch.zeros(1)
