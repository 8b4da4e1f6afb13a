"""Weight selection: a large pretrained ViT's tensors in, a smaller encoder's initial values out.

Each dimension of a small tensor takes evenly spaced slices of the large one. Layers, heads and the dimensions
within a head are selected one by one, and every tensor that reads or writes a dimension takes the same slices
of it, so that a block of equal shape computes exactly what the source's block does.

D width, M heads, E = D/M head width.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from mergevq.errors import CheckpointError, UsageError, shown
from mergevq.models.layers import SelfAttention
from mergevq.models.pretrained import load_timm_model, read_weights
from mergevq.models.tokenizer.tome import ToMeBlock

_WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


def select(tensor: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Evenly spaced slices along every dimension: slice i of n out of N is floor(i N / n).

    Args:
        tensor: any shape.
        shape: as many sizes, none larger than the tensor's.

    Returns:
        A tensor of that shape.

    Raises:
        UsageError: the shape has other dimensions than the tensor, or is larger in one.

    Source: Initializing Models with Larger Ones (arXiv:2311.18823), Sec. 3.
    """
    if len(shape) != tensor.dim() or any(n > size for n, size in zip(shape, tensor.shape, strict=True)):
        raise UsageError(
            f"weight selection takes {tuple(shape)} out of {tuple(tensor.shape)}; "
            "the source must be at least as large in every dimension"
        )
    for dim, wanted in enumerate(shape):
        tensor = tensor.index_select(dim, _evenly_spaced(tensor.shape[dim], wanted))
    return tensor


def load_timm_blocks(source: Path | str) -> dict[str, torch.Tensor]:
    """The tensors of a timm ViT's blocks.

    Args:
        source: a .safetensors or .pth file of a timm ViT (or DINOv2's own), or the name of a timm model,
            whose pretrained weights are then fetched.

    Returns:
        Tensors by timm's names, `blocks.0.attn.qkv.weight` and so on.

    Raises:
        UsageError: no such file or name, or the hub cannot be reached.
        CheckpointError: the file is damaged, or there are no blocks in it.
    """
    is_file = isinstance(source, Path) or source.endswith(_WEIGHT_SUFFIXES)
    weights = read_weights(source) if is_file else load_timm_model(str(source), pretrained=True).state_dict()
    blocks = {name: value for name, value in weights.items() if name.startswith("blocks.")}
    if not blocks:
        raise CheckpointError(f"{source} holds no ViT blocks (blocks.0.norm1.weight, ...); pass a timm ViT")
    return blocks


@torch.no_grad()
def initialise_blocks(
    blocks: Sequence[ToMeBlock] | nn.ModuleList,
    state_dict: Mapping[str, torch.Tensor],
    *,
    source_head_width: int = 64,
) -> None:
    """Overwrite the parameters of ToMe blocks with selected weights of a timm ViT, in place.

    Args:
        blocks: no more of them than the source has.
        state_dict: what `load_timm_blocks` returns.
        source_head_width: E of the source; 64 in DINOv2 and in nearly every ViT.

    Raises:
        UsageError: the blocks are more, wider or have more heads than the source.
        CheckpointError: a tensor is missing or misshapen, as in blocks with another MLP than two linear layers.

    Source: Initializing Models with Larger Ones (arXiv:2311.18823), Sec. 3.
    Differs: the layers are evenly spaced too, where the paper keeps the first ones.
    """
    layers = _by_layer(state_dict)
    if len(blocks) > len(layers):
        raise UsageError(
            f"there are {len(blocks)} blocks to fill and {len(layers)} in the source; pass a deeper source"
        )
    for index, block in zip(_evenly_spaced(len(layers), len(blocks)).tolist(), blocks, strict=True):
        target = typing.cast(ToMeBlock, block)
        try:
            _fill_attention(target.attention, layers[index], source_head_width)
            _fill_rest(target, layers[index])
        except CheckpointError:
            raise
        except (RuntimeError, IndexError) as error:
            raise CheckpointError(
                f"block {index} of the source has tensors of other shapes than a ViT's"
            ) from error


def _by_layer(state_dict: Mapping[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    """The tensors of each block by their name within it: `blocks.3.norm1.bias` is [3]["norm1.bias"]."""
    layers: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in state_dict.items():
        kind, _, rest = name.partition(".")
        if kind == "blocks":
            index, _, rest = rest.partition(".")
            if not index.isdecimal():
                raise CheckpointError(
                    f"the source has a tensor {shown(name)}; blocks of a timm ViT are numbered"
                )
            layers.setdefault(int(index), {})[rest] = value
    return [layers[index] for index in sorted(layers)]


def _fill_attention(attention: SelfAttention, state: Mapping[str, torch.Tensor], head_width: int) -> None:
    """Fill qkv and the output projection with the same heads, and the same dimensions of each."""
    qkv, out = attention.qkv, attention.out
    width = out.out_features
    split = (attention.heads, width // attention.heads)
    _check_shapes(state)
    weight = _get(state, "attn.qkv.weight")
    if weight.shape[1] % head_width:
        raise UsageError(
            f"the source is {weight.shape[1]} wide, no multiple of its head width {head_width}; "
            "pass the right source_head_width"
        )
    if attention.heads * head_width > weight.shape[1] and weight.shape[1] % attention.heads == 0:
        # More heads than the source has (a d32 preset from a ViT-S): none stays whole, features keep their order.
        head_width = weight.shape[1] // attention.heads
    weight = weight.unflatten(0, (3, -1, head_width))  # (3, M, E, D)
    qkv.weight.copy_(select(weight, (3, *split, width)).flatten(0, 2))  # (3 D, D)
    weight = _get(state, "attn.proj.weight").unflatten(1, (-1, head_width))  # (D, M, E)
    out.weight.copy_(select(weight, (width, *split)).flatten(1, 2))  # (D, D)
    _fill(out.bias, _get(state, "attn.proj.bias"))
    bias = _get(state, "attn.qkv.bias").unflatten(0, (3, -1, head_width))  # (3, M, E)
    qkv.bias.copy_(select(bias, (3, *split)).flatten())  # (3 D,)


def _check_shapes(state: Mapping[str, torch.Tensor]) -> None:
    """Makes sure that the attention of a source is one before it is taken apart."""
    width = _get(state, "attn.proj.bias").numel()
    wanted = {"qkv.weight": (3 * width, width), "qkv.bias": (3 * width,), "proj.weight": (width, width)}
    for name, shape in wanted.items():
        found = tuple(_get(state, f"attn.{name}").shape)
        if found != shape:
            raise CheckpointError(
                f"attn.{name} of the source's blocks is {found}, not {shape}; pass a timm ViT"
            )


def _fill_rest(block: ToMeBlock, state: Mapping[str, torch.Tensor]) -> None:
    """Fill normalisation, MLP and LayerScale."""
    pairs: dict[str, nn.LayerNorm | nn.Linear] = {
        "norm1": block.norm1,
        "norm2": block.norm2,
        "mlp.fc1": block.mlp.up,
        "mlp.fc2": block.mlp.down,
    }
    for name, module in pairs.items():
        _fill(module.weight, _get(state, f"{name}.weight"))
        _fill(module.bias, _get(state, f"{name}.bias"))
    for name, scale in (("ls1.gamma", block.scale1), ("ls2.gamma", block.scale2)):
        # A source without LayerScale adds its branches unscaled.
        if name in state:
            _fill(scale, state[name])
        else:
            scale.fill_(1.0)


def _fill(parameter: torch.Tensor, source: torch.Tensor) -> None:
    parameter.copy_(select(source, parameter.shape))


def _get(state: Mapping[str, torch.Tensor], name: str) -> torch.Tensor:
    if name not in state:
        raise CheckpointError(
            f"the source's blocks have no {name}; pass a ViT with qkv biases and an MLP of two linear layers"
        )
    return state[name]


def _evenly_spaced(size: int, wanted: int) -> torch.Tensor:
    return torch.arange(wanted) * size // wanted
