"""Tensors from files, whatever the files are in truth: nothing is unpickled but tensors and plain values.

A file that is something else (a git-lfs pointer, a web page, a pickled model) is named as what it is.
"""

from __future__ import annotations

import pickle
import textwrap
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from mergevq.errors import CheckpointError
from mergevq.storage.files import mistaken_for

_MOST_INFLATED = 4
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
        reason = textwrap.shorten(getattr(error, "strerror", None) or str(error), 200, placeholder=" ...")
        raise CheckpointError(f"{path} cannot be read as safetensors: {reason}; copy it again") from error


def read_torch(path: Path) -> Any:
    """What `torch.save` wrote, on the CPU, as long as it is tensors and plain values.

    Raises:
        CheckpointError: it is damaged, or holds anything else; nothing in it was executed.
    """
    refuse_mistaken(path)
    try:
        _refuse_inflated(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols
            return torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:  # its message goes on to explain how to execute the file
        raise CheckpointError(f"{path} cannot be read safely: {_UNSAFE}") from error
    except Exception as error:  # a damaged file can make the reader raise anything
        if "weights_only" in str(error):  # a TorchScript archive, which PyTorch says how to execute
            raise CheckpointError(f"{path} cannot be read safely: {_UNSAFE}") from error
        raise CheckpointError(f"{path} cannot be read: it is damaged, or no file of torch.save") from error


def _refuse_inflated(path: Path) -> None:
    """torch.save compresses nothing; what is compressed many times over is there to fill the memory."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())
    if size > _MOST_INFLATED * path.stat().st_size:
        raise CheckpointError(
            f"{path} is compressed, which torch.save does not do, and would fill {size} bytes"
        )


def refuse_mistaken(path: Path) -> None:
    """Raises CheckpointError for a file that was taken for the one that is wanted."""
    mistake = mistaken_for(path)
    if mistake:
        raise CheckpointError(f"{path} is {mistake}")
