"""Features of reference pictures, remembered between evaluations by what went into them.

A source of pictures, a network and a size in, a key out; files of that name hold the features. The key hashes
the pictures' own bytes, so renamed, moved or touched files are found again and changed ones are not. A
damaged file counts as none, and one that cannot be written costs a warning only.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from mergevq.data.images.decode import reading
from mergevq.data.images.sources import ImageSource
from mergevq.errors import DataError, OutputError
from mergevq.metrics.features.statistics import FeatureSet
from mergevq.models.store import write_atomically

logger = logging.getLogger(__name__)

_FORMAT = "mergevq-reference 2"
_TENSORS = {"count", "mean", "scatter", "sample"}


def default_cache() -> Path:
    """Where features are remembered unless the user says otherwise."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "mergevq" / "references"


def reference_key(source: ImageSource, indices: Iterable[int], *, size: int, network: str) -> str:
    """SHA-256 of everything that decides the features of some pictures.

    Args:
        source: the pictures.
        indices: which of them, in order.
        size: pixels a side after resizing and cropping.
        network: SHA-256 of the network's weights.
    """
    digest = hashlib.sha256(f"{_FORMAT} {network} {size}".encode())
    for index in indices:
        digest.update(hashlib.sha256(_content(source, index)).digest())
    return digest.hexdigest()


def read_reference(folder: Path, key: str) -> FeatureSet | None:
    """The features remembered under a key; None where there are none, or they are damaged."""
    path = folder / f"{key}.safetensors"
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            expected = (file.metadata() or {}).get("sha256")
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        logger.warning("the remembered features %s cannot be read (%s); they are made again", path, error)
        return None
    if set(tensors) != _TENSORS or _digest(tensors) != expected:
        logger.warning("the remembered features %s are damaged; they are made again", path)
        return None
    return FeatureSet.from_state_dict(tensors)


def write_reference(folder: Path, key: str, features: FeatureSet) -> None:
    """Remembers features under a key; a folder that cannot be written is warned of."""
    tensors = {name: value.contiguous() for name, value in features.state_dict().items()}
    metadata = {"format": _FORMAT, "sha256": _digest(tensors)}
    try:
        write_atomically(
            folder / f"{key}.safetensors", lambda path: save_file(tensors, path, metadata=metadata)
        )
    except OutputError as error:
        logger.warning("the reference's features are not remembered: %s", error)


def _content(source: ImageSource, index: int) -> bytes:
    """The bytes of a picture's file; its pixels where it comes from no file; nothing where it is broken."""
    try:
        with reading(source.name(index)):
            image = source.open(index)
            file = getattr(image, "fp", None)
            if isinstance(file, io.BytesIO):
                return file.getvalue()
            return f"{image.mode} {image.size} ".encode() + image.tobytes()
    except DataError:
        return b""


def _digest(tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
