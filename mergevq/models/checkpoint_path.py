"""Where a model is: what a user calls it in, a folder or a file out.

Only `hf://user/name` goes to the network. Anything else is a path, and a mistyped one is answered with the nearest that
exists.
"""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path

from mergevq.errors import CheckpointError, shortened
from mergevq.storage.files import expanded

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer"
"""The folder of a generator's tokenizer within that of the generator."""

# A Path makes one slash of two.
_HUB = re.compile(r"hf:/{1,2}(?P<repository>[\w.-]+/[\w.-]+)", re.ASCII)
_LIKE_A_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)


def checkpoint_path(where: str | Path) -> Path:
    """The folder or the training checkpoint that a user names.

    Args:
        where: a path, in which ~ is the home folder, or `hf://user/name`, which is downloaded.

    Raises:
        CheckpointError: nothing is there, or it is a file out of a model's folder.
    """
    text = str(where)
    if text.startswith("hf:"):
        return _downloaded(text)
    path = expanded(where)
    if os.path.isfile(path) and path.suffix in (".json", ".safetensors", ".yaml"):
        raise CheckpointError(f"{where} is one file of a model; give its folder, {path.parent}")
    if os.path.isdir(path) or os.path.isfile(path):
        return path
    raise CheckpointError(f"there is no checkpoint at {shortened(where)}{_nearest(path)}{_hub_hint(text)}")


def _nearest(path: Path) -> str:
    """What stands where the path goes wrong and is called most like it."""
    missing = next(part for part in (path, *path.parents) if os.path.isdir(part.parent))
    try:
        beside = [
            entry.name for entry in missing.parent.iterdir() if entry.is_dir() or entry.suffix == ".ckpt"
        ]
    except OSError:
        return ""
    near = difflib.get_close_matches(missing.name, beside, n=1)
    return f"; did you mean {missing.parent / near[0]}?" if near else ""


def _hub_hint(text: str) -> str:
    if not _LIKE_A_REPOSITORY.fullmatch(text):
        return ""
    return f"; a model on the Hugging Face hub is hf://{shortened(text)}"


def _downloaded(text: str) -> Path:
    """The folder of a repository on the Hugging Face hub, as far as it is a model's."""
    named = _HUB.fullmatch(text)
    if named is None:
        raise CheckpointError(f"{text} is not understood; a model on the Hugging Face hub is hf://user/name")
    repository = named["repository"]
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise CheckpointError(
            f"hf://{repository} needs huggingface_hub, which is not installed: pip install mergevq[hub]"
        ) from error
    files = [CONFIG, WEIGHTS]
    try:
        found = snapshot_download(
            repository, allow_patterns=[*files, *(f"{TOKENIZER}/{file}" for file in files)]
        )
    except Exception as error:  # the hub's client raises many kinds: offline, unknown, private
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"hf://{repository} cannot be had from the hub: {reason}") from error
    return Path(found)
