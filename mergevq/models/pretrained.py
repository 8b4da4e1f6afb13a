"""Weights that others trained: a local file or a timm name in, tensors or a network out.

Nothing here unpickles code: files are safetensors or what `torch.load(weights_only=True)` accepts. Nothing is
downloaded unless the caller asks for a timm model by name with `pretrained=True`.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mergevq.errors import CheckpointError, UsageError
from mergevq.files import expanded
from mergevq.models.weight_files import read_safetensors, read_torch


def read_weights(path: Path | str) -> dict[str, torch.Tensor]:
    """The tensors of a weights file by name, on the CPU.

    Args:
        path: a .safetensors file, or one written by `torch.save` that holds a flat dict of tensors.

    Raises:
        UsageError: there is no such file.
        CheckpointError: the file is damaged, holds more than tensors, or would run code when read.
    """
    path = expanded(path)
    if not path.is_file():
        raise UsageError(f"there is no weights file {path}; pass the path of a .safetensors or .pth file")
    weights = read_safetensors(path) if path.suffix == ".safetensors" else read_torch(path)
    if not isinstance(weights, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in weights.items()
    ):
        raise CheckpointError(f"{path} does not hold a flat dict of tensors; save the bare state dict")
    return weights


def load_timm_model(
    name: str, *, weights: Path | str | None = None, pretrained: bool = False, **arguments: Any
) -> nn.Module:
    """A timm network without its classifier, with weights from a local file or from timm's hub.

    Args:
        name: timm's name of the model, with or without the tag of its weights.
        weights: a local file of the model's weights; nothing is downloaded then.
        pretrained: take timm's own weights for `name`, from its cache or the network.
        arguments: passed to timm.create_model.

    Raises:
        UsageError: timm is missing, does not know the name, neither source of weights is named (or both
            are), or the hub cannot be reached.
        CheckpointError: the file does not fit the model.
    """
    timm = _import_timm()
    if not timm.is_model(name):
        near = ", ".join(difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.4))
        raise UsageError(f"timm has no model {name!r}; near: {near or 'none'}; timm.list_models() has all")
    if pretrained == (weights is not None):
        raise UsageError(f"weights of {name}: pass either a local file or pretrained=True (a download)")
    if weights is None:
        return _fetch(timm, name, arguments)
    network: nn.Module = timm.create_model(name, num_classes=0, **arguments)
    _fill(network, read_weights(weights), f"{weights} does not fit {name}")
    return network


def _fetch(timm: Any, name: str, arguments: dict[str, Any]) -> nn.Module:
    """The network with the weights of timm's hub, or one sentence about why it cannot be had."""
    try:
        network: nn.Module = timm.create_model(name, pretrained=True, num_classes=0, **arguments)
    except TypeError:  # an argument that this architecture does not take: the caller's business
        raise
    except Exception as error:  # timm and its hub clients share no base class: HTTP, OS, value, runtime
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(
            f"the weights of {name} could not be fetched ({reason}); check the network or pass a local file"
        ) from error
    return network


def _fill(network: nn.Module, weights: dict[str, torch.Tensor], complaint: str) -> None:
    """Load every tensor that the network has; what only the file has, such as a classifier, is left out.

    timm's own loader is not strict for a model without classifier, and would accept any file.
    """
    try:
        missing = network.load_state_dict(weights, strict=False).missing_keys
    except RuntimeError as error:
        raise CheckpointError(f"{complaint}: tensors have other shapes; pass this model's weights") from error
    if missing:
        raise CheckpointError(f"{complaint}: there is no {missing[0]}; pass this model's weights")


def _import_timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise UsageError("timm is not installed; install it to use its networks") from error
    return timm
