"""The tokenizer and the generator of PyTorch for arrays, as the commands use them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from mergevq.backends import select
from mergevq.cli.shared import common
from mergevq.generation import store
from mergevq.generation.pipeline import ImageGenerator
from mergevq.models.store import fingerprint
from mergevq.models.tokenizer.tokenizer import Tokenizer
from mergevq.tokens import TokenArrays


class TorchTokenizer:
    """A tokenizer on its device; arrays go there and come back."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.config = tokenizer.config

    @property
    def fingerprint(self) -> str:
        """By which token files know the tokenizer."""
        return fingerprint(self.tokenizer)

    @torch.inference_mode()
    def encode(self, images: np.ndarray, keep: int | None = None) -> TokenArrays:
        """(B, 3, H, W) float32 in [-1, 1] to tokens."""
        return self.tokenizer.encode(torch.from_numpy(images).to(self.tokenizer.device), keep).arrays()

    @torch.inference_mode()
    def decode(self, tokens: TokenArrays | np.ndarray, grid: tuple[int, int] | None = None) -> np.ndarray:
        """Tokens, or (B, K) indices alone, to (B, 3, H, W) float32 in [-1, 1]."""
        device = self.tokenizer.device
        if isinstance(tokens, TokenArrays):
            painted = self.tokenizer.decode(tokens.tensors().to(device))
        else:
            painted = self.tokenizer.decode(torch.from_numpy(tokens).to(device), grid)
        return painted.cpu().numpy()


class TorchGenerator:
    """A generator on its device; arrays come back."""

    def __init__(self, generator: ImageGenerator):
        self.generator = generator
        self.config = generator.model.config

    def generate(self, labels: Sequence[int], **settings: Any) -> np.ndarray:
        """Classes to (B, 3, H, W) float32 in [-1, 1]."""
        return self.generator.generate(labels, **settings).cpu().numpy()


def load_tokenizer(options: argparse.Namespace) -> TorchTokenizer:
    """The tokenizer of --checkpoint on the device of --device."""
    tokenizer, _ = common.load_tokenizer(options)
    return TorchTokenizer(tokenizer)


def load_generator(options: argparse.Namespace) -> TorchGenerator:
    """The generator of --checkpoint on the device of --device, compiled with --compile."""
    device = select(options.device)
    generator = store.load_generator(options.checkpoint).to(device.name)
    if options.compile:
        generator.compile()
    return TorchGenerator(generator)
