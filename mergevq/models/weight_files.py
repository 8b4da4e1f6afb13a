"""Tensors from files, whatever the files are in truth: nothing is unpickled but tensors and plain values.

A file that is something else (a git-lfs pointer, a web page, a pickled model) is named as what it is.
"""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from mergevq.errors import CheckpointError
from mergevq.files import mistaken_for

_UNSAFE = (
    "it is damaged, or holds objects other than tensors and plain values, such as a whole model, which only running "
    "code from the file could read; save the bare state dict"
)


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file, on the CPU.

    Raises:
        CheckpointError: it is damaged, or no such file.
    """
    refuse_mistaken(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors: {error}; copy it again") from error


def read_torch(path: Path) -> Any:
    """What `torch.save` wrote, on the CPU, as long as it is tensors and plain values.

    Raises:
        CheckpointError: it is damaged, or holds anything else; nothing in it was executed.
    """
    refuse_mistaken(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # its message goes on to explain how to execute the file
        raise CheckpointError(f"{path} cannot be read safely: {_UNSAFE}") from error
    except Exception as error:  # a damaged file can make the reader raise anything
        if "weights_only" in str(error):  # a TorchScript archive, which PyTorch says how to execute
            raise CheckpointError(f"{path} cannot be read safely: {_UNSAFE}") from error
        raise CheckpointError(f"{path} cannot be read: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Why `torch.load` failed, as far as it says so to people: a KeyError, say, or a place in its source, does not."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    told = str(error).splitlines()[:1] if isinstance(error, (RuntimeError, OSError)) else []
    plain = [line.partition(". ")[0] for line in told if "enforce fail" not in line]
    return "it is damaged, or no file of torch.save" + "".join(f" ({line})" for line in plain)


def refuse_mistaken(path: Path) -> None:
    """Raises CheckpointError for a file that was taken for the one that is wanted."""
    mistake = mistaken_for(path)
    if mistake:
        raise CheckpointError(f"{path} is {mistake}")
