"""MergeVQ: images to a few quantised tokens with a source map, and back.

    tok = mergevq.load("runs/tok")
    tokens = tok.encode(images, keep=144)
    images = tok.decode(tokens)

Source: MergeVQ, CVPR 2025 (arXiv:2504.00999).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

# Needs no PyTorch; and the function must be bound after its module, which has the same name.
from mergevq.presets import presets

if TYPE_CHECKING:
    from mergevq.generation.store import create_generator, save
    from mergevq.loading import load
    from mergevq.models.store import create
    from mergevq.tokens import Tokens

__version__ = "0.1.0"

__all__ = ["Tokens", "create", "create_generator", "load", "presets", "save"]

_HOMES = {
    "Tokens": "mergevq.tokens",
    "create": "mergevq.models.store",
    "create_generator": "mergevq.generation.store",
    "load": "mergevq.loading",
    "save": "mergevq.generation.store",
}


def __getattr__(name: str) -> Any:
    """The names that need PyTorch, on first use: `mergevq --help` answers without it."""
    if name not in _HOMES:
        raise AttributeError(f"module 'mergevq' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
