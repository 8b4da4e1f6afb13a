"""Attention on an NPU without the matrix of all pairs of tokens in memory.

Where the log-size bias goes is the one thing to get right here. `npu_fusion_attention` adds its `pse`
before it scales, so that the bias must be divided by the scale; a float mask for PyTorch's own attention
would be exact, but leaves the fused kernels. Masks of the vendor's kernels say what to drop, not what
to keep. What the kernels refuse is left to the references, which PyTorch computes on the NPU itself.

Source: the documentation of op-plugin, `npu_fusion_attention` and `npu_fused_infer_attention_score`.
Legend: B batch, M heads, T queries, S keys, E head width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from mergevq.backends.attention import decode_attention, sized_attention
from mergevq.backends.npu.soc import has_fused_kernels
from mergevq.backends.registry import OK, Reject, Verdict

_ALIGNMENT = 16
"""Features that a head's width is filled up to a multiple of: 32 bytes of a 16-bit type."""
_HEADS = 256
_BATCH = 65_536
_TRAINING_WIDTH = 768
_INFERENCE_WIDTH = 512


def _wants_gradient(*tensors: torch.Tensor) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def _unfit(*tensors: torch.Tensor, width: int, dtypes: tuple[torch.dtype, ...]) -> str | None:
    """What forbids every fused kernel for query, key and value; None where nothing does."""
    query, key, value = tensors
    if not has_fused_kernels():
        return "this processor has no fused attention"
    if query.dtype not in dtypes or {key.dtype, value.dtype} != {query.dtype}:
        kinds = ", ".join(str(tensor.dtype).removeprefix("torch.") for tensor in tensors)
        return f"query, key and value are {kinds}; one of {', '.join(map(str, dtypes))} is wanted"
    if key.shape != value.shape:
        return "keys and values differ in shape"
    if not 0 < query.shape[1] <= _HEADS:
        return f"{query.shape[1]} heads, at most {_HEADS} are allowed"
    if not 0 < query.shape[3] <= width:
        return f"heads are {query.shape[3]} wide, at most {width} is allowed"
    return None


def _in_training(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, log_size: torch.Tensor | None
) -> Verdict:
    """Accepts what `npu_fusion_attention` is documented for."""
    dtypes = (torch.float16, torch.bfloat16, torch.float32)
    reason = _unfit(query, key, value, width=_TRAINING_WIDTH, dtypes=dtypes)
    if reason is None and torch.compiler.is_compiling():
        reason = "documented for eager calls only"
    if reason is None and not _wants_gradient(query, key, value):
        reason = "documented for training only"
    if reason is None and log_size is not None and log_size.requires_grad:
        reason = "a gradient of the sizes is wanted"
    return OK if reason is None else Reject(reason)


@sized_attention.impl("npu", name="fusion_attention", when=_in_training, priority=1, optional=True)
def sized_attention_fused(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, log_size: torch.Tensor | None
) -> torch.Tensor:
    """`sized_attention` by the kernel that computes softmax((Q K^T + pse) * scale) V."""
    heads, width = query.shape[1], query.shape[3]
    pse = None
    if log_size is not None:
        bias = log_size[:, None, None, :] * width**0.5  # (B, 1, 1, S), divided by the scale
        # One bias for all heads is not among the shapes that the kernel takes; (B, M, 1, S) is.
        pse = bias.to(query.dtype).expand(-1, heads, -1, -1).contiguous()
    attended = torch.ops.npu.npu_fusion_attention(
        query, key, value, heads, "BNSD", pse=pse, scale=width**-0.5
    )
    return attended[0]


def _with_wider_keys(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, log_size: torch.Tensor | None
) -> Verdict:
    """Accepts what PyTorch's attention gives to a fused kernel on an NPU, once the keys are wider."""
    dtypes = (torch.float16, torch.bfloat16, torch.float32)
    reason = _unfit(query, key, value, width=_INFERENCE_WIDTH - _ALIGNMENT, dtypes=dtypes)
    return OK if reason is None else Reject(reason)


@sized_attention.impl("npu", name="wider_keys", when=_with_wider_keys, optional=True)
def sized_attention_wider_keys(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, log_size: torch.Tensor | None
) -> torch.Tensor:
    """`sized_attention` without a bias: one more feature, 1 in each query and sqrt(E) log s in each key.

    So PyTorch's attention needs no mask, and keeps to its fused kernel, in training and in inference.
    """
    if log_size is None:
        return F.scaled_dot_product_attention(query, key, value)
    width = query.shape[3]
    extra = _ALIGNMENT - width % _ALIGNMENT
    bias = (log_size[:, None, :, None] * width**0.5).to(key.dtype).expand(-1, key.shape[1], -1, -1)
    query = F.pad(F.pad(query, (0, 1), value=1.0), (0, extra - 1))  # (B, M, T, E + extra)
    key = F.pad(torch.cat([key, bias], dim=-1), (0, extra - 1))
    # Keys and values must have one shape.
    value = F.pad(value, (0, extra))
    return F.scaled_dot_product_attention(query, key, value, scale=width**-0.5)[..., :width]


def _in_inference(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, valid: torch.Tensor | None
) -> Verdict:
    """Accepts what `npu_fused_infer_attention_score` is documented for."""
    dtypes = (torch.float16, torch.bfloat16)
    reason = _unfit(query, key, value, width=_INFERENCE_WIDTH, dtypes=dtypes)
    if reason is None and _wants_gradient(query, key, value):
        reason = "documented for inference only"
    if reason is None and query.shape[3] % _ALIGNMENT:
        reason = f"heads are {query.shape[3]} wide, a multiple of {_ALIGNMENT} is wanted"
    if reason is None and query.shape[0] > _BATCH:
        reason = f"a batch of {query.shape[0]}, at most {_BATCH} is allowed"
    return OK if reason is None else Reject(reason)


@decode_attention.impl("npu", name="fused_infer", when=_in_inference, optional=True)
def decode_attention_fused(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, valid: torch.Tensor | None
) -> torch.Tensor:
    """`decode_attention` by the vendor's kernel for caches, which takes no views."""
    heads, width = query.shape[1], query.shape[3]
    dropped = None
    if valid is not None:
        shape = (query.shape[0], 1, query.shape[2], key.shape[2])
        dropped = valid.logical_not().unsqueeze(1).expand(shape).contiguous()  # (B, 1, T, S), true: not seen
    attended = torch.ops.npu.npu_fused_infer_attention_score(
        query.contiguous(),
        key.contiguous(),
        value.contiguous(),
        atten_mask=dropped,
        num_heads=heads,
        num_key_value_heads=heads,
        scale=width**-0.5,
        input_layout="BNSD",
    )
    return attended[0]
