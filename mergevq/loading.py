"""`mergevq.load`: a trained model for PyTorch, or an exported one for ONNX Runtime, by one name.

What a run time needs is imported when it is asked for: exported graphs load without PyTorch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

from mergevq.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from mergevq.export.runtime.generator import OnnxGenerator
    from mergevq.export.runtime.tokenizer import OnnxTokenizer
    from mergevq.generation.pipeline import ImageGenerator
    from mergevq.models.tokenizer import Tokenizer

RUNTIMES = ("torch", "onnx")


@overload
def load(where: str | Path, *, runtime: Literal["torch"] = "torch") -> Tokenizer | ImageGenerator: ...


@overload
def load(
    where: str | Path, *, runtime: Literal["onnx"], provider: str = "cpu", threads: int | None = None
) -> OnnxTokenizer | OnnxGenerator: ...


def load(
    where: str | Path,
    *,
    runtime: str = "torch",
    provider: str | None = None,
    threads: int | None = None,
) -> Tokenizer | ImageGenerator | OnnxTokenizer | OnnxGenerator:
    """A trained tokenizer or generator, ready to use.

    Args:
        where: for PyTorch a folder written by `save` (a training run is one too), a tokenizer's training checkpoint
            (.ckpt; its averaged weights), or the name of a repository on the Hugging Face hub; the model is then on
            the CPU, in evaluation mode. For "onnx" a folder of `mergevq export onnx`.
        runtime: "torch", or "onnx", whose objects have the same methods for NumPy arrays and need no PyTorch.
        provider: of ONNX Runtime: "cpu", "cuda", "tensorrt" or "cann"; used or refused, never replaced.
        threads: of ONNX Runtime; by default OMP_NUM_THREADS where that is set, else its own choice.

    Raises:
        CheckpointError: nothing is there, or a file is truncated, changed, or not of this package.
        UsageError: an unknown run time or provider, or settings of ONNX Runtime for PyTorch.
        DeviceUnavailableError: the provider cannot be used here.
    """
    if runtime == "onnx":
        from mergevq.export.runtime.folder import open_folder

        return open_folder(where, provider or "cpu", threads)
    if runtime != "torch":
        raise UsageError(unknown_name("run time", runtime, RUNTIMES))
    if provider is not None or threads is not None:
        raise UsageError("provider and threads are settings of ONNX Runtime; add runtime='onnx'")
    if is_exported(where):
        raise UsageError(f"{where} holds exported graphs; load it with runtime='onnx'")
    from mergevq.generation import store

    return store.load(where)


def is_exported(where: str | Path) -> bool:
    """Whether this is a folder of exported graphs, which has a manifest in the place of config.json."""
    from mergevq.export.manifest import MANIFEST

    return (Path(where) / MANIFEST).is_file()
