"""What encodes, decodes and generates for a command: PyTorch on a device, or exported graphs without PyTorch.

Either way NumPy arrays go in and come out.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from mergevq.cli.shared import common
from mergevq.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from mergevq.config import TokenizerConfig
    from mergevq.export.runtime.generator.generator import ArrayGenerator
    from mergevq.export.runtime.tokenizer import ArrayTokenizer
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
    """--runtime, --provider and --engines."""
    parser.add_argument(
        "--runtime",
        choices=("torch", "onnx", "tensorrt"),
        default="torch",
        help="onnx runs a folder of `mergevq export onnx`, tensorrt its engines; neither needs PyTorch [%(default)s]",
    )
    parser.add_argument(
        "--provider",
        metavar="NAME",
        help="of ONNX Runtime: cpu, cuda, tensorrt or cann; used or refused, never replaced [cpu]",
    )
    parser.add_argument(
        "--engines",
        type=common.path,
        metavar="DIR",
        help="of `mergevq export engine`, for TensorRT [C/engines]",
    )


def open_tokenizer(options: argparse.Namespace) -> TokenizerEngine:
    """The tokenizer of --checkpoint, where --device or --provider says.

    Raises:
        UsageError: options that do not go together, or the folder holds something else.
        CheckpointError, DeviceUnavailableError: one of them cannot be used.
    """
    _check_options(options)
    if options.runtime == "torch":
        from mergevq.cli.shared.torch_engines import load_tokenizer

        return load_tokenizer(options)
    from mergevq.export.runtime.tokenizer import ArrayTokenizer

    found = _opened(options)
    if not isinstance(found, ArrayTokenizer):
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
        from mergevq.cli.shared.torch_engines import load_generator

        return load_generator(options)
    if options.compile:
        raise UsageError("--compile is for PyTorch; leave it out, or --runtime")
    from mergevq.export.runtime.generator.generator import ArrayGenerator

    found = _opened(options)
    if not isinstance(found, ArrayGenerator):
        raise UsageError(f"{options.checkpoint} holds a tokenizer; give the folder of an exported generator")
    return found


def _opened(options: argparse.Namespace) -> ArrayTokenizer | ArrayGenerator:
    from mergevq.export.runtime.folder import open_engines, open_folder

    if options.runtime == "tensorrt":
        return open_engines(options.checkpoint, options.engines)
    return open_folder(options.checkpoint, "cpu" if options.provider is None else options.provider)


def _check_options(options: argparse.Namespace) -> None:
    from mergevq.loading import is_exported

    runtime = options.runtime
    if runtime == "onnx" and options.device is not None:
        raise UsageError("--device is for PyTorch; with --runtime onnx choose a --provider")
    if runtime == "tensorrt" and options.device is not None:
        raise UsageError("--device is for PyTorch; TensorRT takes the first card of CUDA_VISIBLE_DEVICES")
    if runtime != "onnx" and options.provider is not None:
        other = "choose a --device" if runtime == "torch" else "leave it out"
        raise UsageError(f"--provider is for ONNX Runtime; add --runtime onnx, or {other}")
    if runtime != "tensorrt" and options.engines is not None:
        raise UsageError("--engines is for TensorRT; add --runtime tensorrt")
    if runtime == "torch" and is_exported(options.checkpoint):
        raise UsageError(f"{options.checkpoint} holds exported graphs; add --runtime onnx, or tensorrt")
