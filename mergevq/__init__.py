"""MergeVQ: images to a few quantised tokens with a source map, and back.

    tok = mergevq.load("runs/tok")
    tokens = tok.encode(images, keep=144)
    images = tok.decode(tokens)

Source: MergeVQ, CVPR 2025 (arXiv:2504.00999).
"""

from mergevq.models.store import create, load, save
from mergevq.presets import presets
from mergevq.tokens import Tokens

__version__ = "0.1.0"

__all__ = ["Tokens", "create", "load", "presets", "save"]
