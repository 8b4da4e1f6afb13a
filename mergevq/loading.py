"""`mergevq.load`: a trained model for PyTorch, or an exported one for ONNX Runtime or TensorRT, by one name.

What a run time needs is imported when it is asked for: exported graphs load without PyTorch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

from mergevq.errors import UsageError, unknown_name
from mergevq.storage.files import expanded

if TYPE_CHECKING:
    from mergevq.export.runtime.generator.generator import ArrayGenerator
    from mergevq.export.runtime.tokenizer import ArrayTokenizer
    from mergevq.generation.pipeline import ImageGenerator
    from mergevq.models.tokenizer.tokenizer import Tokenizer

RUNTIMES = ("torch", "onnx", "tensorrt")


@overload
def load(where: str | Path, *, runtime: Literal["torch"] = "torch") -> Tokenizer | ImageGenerator: ...


@overload
def load(
    where: str | Path, *, runtime: Literal["onnx"], provider: str = "cpu", threads: int | None = None
) -> ArrayTokenizer | ArrayGenerator: ...


@overload
def load(
    where: str | Path, *, runtime: Literal["tensorrt"], engines: str | Path | None = None
) -> ArrayTokenizer | ArrayGenerator: ...


def load(
    where: str | Path,
    *,
    runtime: str = "torch",
    provider: str | None = None,
    threads: int | None = None,
    engines: str | Path | None = None,
) -> Tokenizer | ImageGenerator | ArrayTokenizer | ArrayGenerator:
    """A trained tokenizer or generator, ready to use.

    Args:
        where: for PyTorch a folder written by `save` (a training run is one too), a tokenizer's training checkpoint
            (.ckpt; its averaged weights), or hf://user/name on the Hugging Face hub; the model is then on the CPU, in
            evaluation mode, in float32 whatever type it was saved in. For the others a folder of
            `mergevq export onnx`. ~ is the home folder.
        runtime: "torch", or "onnx" (ONNX Runtime) or "tensorrt" (engines of `mergevq export engine`), whose objects
            have the same methods for NumPy arrays and need no PyTorch.
        provider: of ONNX Runtime: "cpu", "cuda", "tensorrt" or "cann"; used or refused, never replaced.
        threads: of ONNX Runtime; by default OMP_NUM_THREADS where that is set, else its own choice.
        engines: the folder of the engines; by default `engines` in `where`.

    Raises:
        CheckpointError: nothing is there, or a file is truncated, changed, or not of this package.
        UsageError: an unknown run time or provider, or settings of another run time.
        DeviceUnavailableError: the provider, or TensorRT, cannot be used here.
    """
    if runtime not in RUNTIMES:
        raise UsageError(unknown_name("run time", runtime, RUNTIMES))
    if runtime != "onnx" and (provider is not None or threads is not None):
        raise UsageError("provider and threads are settings of ONNX Runtime; add runtime='onnx'")
    if runtime != "tensorrt" and engines is not None:
        raise UsageError("engines are for TensorRT; add runtime='tensorrt'")
    if runtime == "onnx":
        from mergevq.export.runtime.folder import open_folder

        return open_folder(where, "cpu" if provider is None else provider, threads)
    if runtime == "tensorrt":
        from mergevq.export.runtime.folder import open_engines

        return open_engines(where, engines)
    if is_exported(where):
        raise UsageError(f"{where} holds exported graphs; load it with runtime='onnx' or 'tensorrt'")
    from mergevq.generation import store

    return store.load(where)


def is_exported(where: str | Path) -> bool:
    """Whether this is a folder of exported graphs, which has a manifest in the place of config.json."""
    from mergevq.export.manifest import MANIFEST

    return (expanded(where) / MANIFEST).is_file()
