"""Weights that others trained: for LPIPS, for a teacher, for the first values of an encoder."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from fuzzing.case import Kind, Target
from fuzzing.kinds.models import tiny_tokenizer
from fuzzing.mutators.arrays import SAFETENSORS
from fuzzing.mutators.places import PLACES
from fuzzing.mutators.tensors import TORCH

_WIDTH = 64


def _vit() -> dict[str, Any]:
    """The tensors of two small blocks by timm's names."""
    import torch

    torch.manual_seed(0)
    shapes = {
        "norm1.weight": (_WIDTH,), "norm1.bias": (_WIDTH,), "norm2.weight": (_WIDTH,), "norm2.bias": (_WIDTH,),
        "attn.qkv.weight": (3 * _WIDTH, _WIDTH), "attn.qkv.bias": (3 * _WIDTH,), "attn.proj.weight": (_WIDTH, _WIDTH),
        "attn.proj.bias": (_WIDTH,), "mlp.fc1.weight": (4 * _WIDTH, _WIDTH), "mlp.fc1.bias": (4 * _WIDTH,),
        "mlp.fc2.weight": (_WIDTH, 4 * _WIDTH), "mlp.fc2.bias": (_WIDTH,),
    }  # fmt: skip
    return {f"blocks.{n}.{name}": torch.randn(shape) for n in range(2) for name, shape in shapes.items()}


def _make_blocks(name: str, folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    if name.endswith(".safetensors"):
        save_file(_vit(), folder / name)
    else:
        torch.save(_vit(), folder / name)


def _read_blocks(name: str, folder: Path) -> None:
    from mergevq.models.weight_selection import initialise_blocks, load_timm_blocks

    blocks = load_timm_blocks(folder / name)
    initialise_blocks(tiny_tokenizer().encoder.blocks, blocks)


def _make_lpips(folder: Path) -> None:
    import torch
    from torchvision.models import squeezenet1_1

    torch.manual_seed(0)
    features = squeezenet1_1().features.state_dict()
    torch.save({f"features.{name}": value.half() for name, value in features.items()}, folder / "squeeze.pth")


def _read_lpips(folder: Path) -> None:
    from mergevq.losses.perceptual import load_lpips

    load_lpips("squeeze", folder / "squeeze.pth")


def _make_teacher(folder: Path) -> None:
    import timm
    import torch

    torch.manual_seed(0)
    network = timm.create_model("test_vit", num_classes=0)
    torch.save(network.state_dict(), folder / "teacher.pth")


def _read_teacher(folder: Path) -> None:
    from mergevq.models.pretrained import load_timm_model

    load_timm_model("test_vit", weights=folder / "teacher.pth")


def _blocks(name: str, mutators: Any) -> Kind:
    return Kind(
        make=partial(_make_blocks, name),
        targets=(Target(name, mutators, 12), Target(name, PLACES)),
        read=partial(_read_blocks, name),
        default=16,
    )


KINDS = {
    "weights-safetensors": _blocks("vit.safetensors", SAFETENSORS),
    "weights-pth": _blocks("vit.pth", TORCH),
    "lpips": Kind(
        make=_make_lpips,
        targets=(Target("squeeze.pth", TORCH, 12), Target("squeeze.pth", PLACES)),
        read=_read_lpips,
        default=6,
        share=0.2,
        depends={"lpips": "the perceptual loss"},
    ),
    "teacher": Kind(
        make=_make_teacher,
        targets=(Target("teacher.pth", TORCH, 12), Target("teacher.pth", PLACES)),
        read=_read_teacher,
        default=6,
        share=0.2,
    ),
}
