"""What encodes, decodes and generates for a command: PyTorch on a device, or exported graphs without PyTorch.

Either way NumPy arrays go in and come out.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from mergevq.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from mergevq.config import TokenizerConfig
    from mergevq.generator_config import GeneratorConfig
    from mergevq.tokens import TokenArrays


class TokenizerEngine(Protocol):
    """A tokenizer for arrays.

    Attributes:
        config: of the tokenizer.
        fingerprint: by which token files know it.
    """

    config: TokenizerConfig

    @property
    def fingerprint(self) -> str: ...

    def encode(self, images: np.ndarray, keep: int | None = None) -> TokenArrays:
        """(B, 3, H, W) float32 in [-1, 1] to tokens."""

    def decode(self, tokens: TokenArrays | np.ndarray, grid: tuple[int, int] | None = None) -> np.ndarray:
        """Tokens, or (B, K) indices alone, to (B, 3, H, W) float32 in [-1, 1]."""


class GeneratorEngine(Protocol):
    """A generator for arrays.

    Attributes:
        config: of the generator.
    """

    config: GeneratorConfig

    @property
    def generate(self) -> Callable[..., np.ndarray]:
        """Classes to (B, 3, H, W) float32 in [-1, 1]; the settings are those of `ImageGenerator.generate`."""


def add_runtime(parser: argparse.ArgumentParser) -> None:
    """--runtime and --provider."""
    parser.add_argument(
        "--runtime",
        choices=("torch", "onnx"),
        default="torch",
        help="onnx runs a folder of `mergevq export onnx` and needs no PyTorch [%(default)s]",
    )
    parser.add_argument(
        "--provider",
        metavar="NAME",
        help="of ONNX Runtime: cpu, cuda, tensorrt or cann; used or refused, never replaced [cpu]",
    )


def open_tokenizer(options: argparse.Namespace) -> TokenizerEngine:
    """The tokenizer of --checkpoint, where --device or --provider says.

    Raises:
        UsageError: options that do not go together, or the folder holds something else.
        CheckpointError, DeviceUnavailableError: one of them cannot be used.
    """
    _check_options(options)
    if options.runtime == "torch":
        from mergevq.cli.torch_engines import load_tokenizer

        return load_tokenizer(options)
    from mergevq.export.runtime.folder import open_folder
    from mergevq.export.runtime.tokenizer import OnnxTokenizer

    found = open_folder(options.checkpoint, options.provider or "cpu")
    if not isinstance(found, OnnxTokenizer):
        raise UsageError(f"{options.checkpoint} holds a generator; give the folder of an exported tokenizer")
    return found


def open_generator(options: argparse.Namespace) -> GeneratorEngine:
    """The generator of --checkpoint, where --device or --provider says; compiled with --compile.

    Raises:
        UsageError: options that do not go together, or the folder holds something else.
        CheckpointError, DeviceUnavailableError: one of them cannot be used.
    """
    _check_options(options)
    if options.runtime == "torch":
        from mergevq.cli.torch_engines import load_generator

        return load_generator(options)
    if options.compile:
        raise UsageError("--compile is for PyTorch; leave it out, or --runtime onnx")
    from mergevq.export.runtime.folder import open_folder
    from mergevq.export.runtime.generator import OnnxGenerator

    found = open_folder(options.checkpoint, options.provider or "cpu")
    if not isinstance(found, OnnxGenerator):
        raise UsageError(f"{options.checkpoint} holds a tokenizer; give the folder of an exported generator")
    return found


def _check_options(options: argparse.Namespace) -> None:
    from mergevq.loading import is_exported

    if options.runtime == "onnx" and options.device is not None:
        raise UsageError("--device is for PyTorch; with --runtime onnx choose a --provider")
    if options.runtime == "torch" and options.provider is not None:
        raise UsageError("--provider is for ONNX Runtime; add --runtime onnx, or choose a --device")
    if options.runtime == "torch" and is_exported(options.checkpoint):
        raise UsageError(f"{options.checkpoint} holds exported graphs; add --runtime onnx")
