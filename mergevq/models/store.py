"""Saving and loading tokenizers: config.json beside model.safetensors, never a pickle.

A folder written by `save` loads without knowing anything else. Files are written under another name
and renamed, so that a full disk or a killed process leaves what was there before. The configuration
records the SHA-256 of the weights, by which a truncated or exchanged file is found out.
"""

from __future__ import annotations

import hashlib
import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save_file
from torch import nn

from mergevq.config import TokenizerConfig, from_dict, override, to_dict
from mergevq.documents import DocumentError, read_json
from mergevq.errors import CheckpointError, MergeVQError, shown
from mergevq.files import atomic, expanded, read_steadily, sha256, writing
from mergevq.files import write_atomically as write_atomically
from mergevq.models.checkpoint_path import CONFIG as CONFIG
from mergevq.models.checkpoint_path import WEIGHTS as WEIGHTS
from mergevq.models.checkpoint_path import checkpoint_path
from mergevq.models.tokenizer.tokenizer import Tokenizer
from mergevq.models.weight_files import read_safetensors, read_torch, refuse_mistaken
from mergevq.presets import preset
from mergevq.tokens import check_maker

FORMAT = "mergevq-tokenizer"

Model = TypeVar("Model", bound=nn.Module)


def create(name: str, **overrides: Any) -> Tokenizer:
    """A tokenizer with random weights, on the CPU.

    Args:
        name: a preset.
        overrides: dotted keys of its configuration with new values, or groups as mappings:
            `create("tiny-32", **{"encoder.depth": 2})`, `create("tiny-32", encoder={"depth": 2})`.

    Raises:
        UsageError: an unknown preset or key; the nearest known one is named.
    """
    return Tokenizer(override(preset(name), overrides))


def save(tokenizer: Tokenizer, folder: str | Path) -> None:
    """Writes a tokenizer to a folder, each file whole or not at all.

    Args:
        tokenizer: on any device; the file holds CPU tensors.
        folder: made where it is missing.

    Raises:
        OutputError: it cannot be written; what was there before is unchanged.
    """
    write_model(tokenizer, expanded(folder), FORMAT, config=to_dict(tokenizer.config))


def write_model(model: nn.Module, folder: Path, kind: str, **described: Any) -> None:
    """Writes weights, and beside them what they are, each file whole or not at all.

    Args:
        model: on any device; the file holds CPU tensors.
        folder: made where it is missing.
        kind: the format that `read_description` will ask for.
        described: what else config.json says, as JSON values.

    Raises:
        OutputError: it cannot be written; what was there before is unchanged.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        # A process killed between the two renames leaves the older weights, which the new description knows.
        older = sha256(folder / WEIGHTS) if (folder / WEIGHTS).is_file() else None
        with atomic(folder / CONFIG, folder / WEIGHTS) as (config, weights):
            save_file(tensors, weights, metadata={"format": "pt"})
            head = {"format": kind, "version": 1, "sha256": sha256(weights), "replaces": older}
            config.write_text(json.dumps(head | described, indent=2) + "\n")


def load(where: str | Path) -> Tokenizer:
    """A trained tokenizer, on the CPU, in evaluation mode.

    Args:
        where: a folder written by `save` (a training run is one too), a training checkpoint (.ckpt; its
            averaged weights), or hf://user/name on the Hugging Face hub. ~ is the home folder.

    Raises:
        CheckpointError: nothing is there, or a file is truncated, changed, or not of this package.
    """
    path = checkpoint_path(where)
    return (_load_folder(path) if path.is_dir() else _load_training_checkpoint(path)).eval()


def _load_folder(folder: Path) -> Tokenizer:
    described, tensors = read_model(folder, FORMAT)
    return _filled(described.get("config"), tensors, folder / WEIGHTS)


def read_model(folder: Path, kind: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The config.json of a folder and the weights that it describes, also while a run writes both anew.

    Args:
        folder: of a tokenizer or a generator.
        kind: the format that config.json must name, "mergevq-tokenizer" say.

    Raises:
        CheckpointError: one of them is missing, damaged, or of something else.
    """

    def read() -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        described = read_description(folder, kind)
        return described, read_weights(folder, described)

    return read_steadily((folder / CONFIG, folder / WEIGHTS), read)


def read_description(folder: Path, kind: str) -> dict[str, Any]:
    """The config.json of a folder.

    Args:
        folder: of a tokenizer or a generator.
        kind: the format that it must name, "mergevq-tokenizer" say.

    Raises:
        CheckpointError: there is none, or it describes something else.
    """
    path = folder / CONFIG
    what = kind.removeprefix("mergevq-")
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a {what}, which is a folder with a {CONFIG}")
    if not path.is_file():
        raise CheckpointError(f"{folder} is not a {what}: it has no {CONFIG}")
    try:
        described = read_json(path)
    except DocumentError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not isinstance(described, dict) or described.get("format") != kind:
        raise CheckpointError(f"{path} does not describe a mergevq {what}{_instead(described)}")
    return described


def _instead(described: Any) -> str:
    """What else of this package a config.json describes, in words."""
    kind = described.get("format") if isinstance(described, dict) else None
    if not isinstance(kind, str) or not kind.startswith("mergevq-"):
        return ""
    return f" but {shown(kind)}"


def read_weights(folder: Path, described: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The weights beside a description.

    Raises:
        CheckpointError: they are missing, or not the ones that it describes.
    """
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise CheckpointError(f"{folder} has a {CONFIG} and no {WEIGHTS}")
    refuse_mistaken(weights)
    try:
        found = sha256(weights)
    except OSError as error:
        raise CheckpointError(f"{weights} cannot be read: {error.strerror or error}") from error
    if found not in (described.get("sha256"), described.get("replaces")):
        raise CheckpointError(f"{weights} is truncated or is not the file that its {CONFIG} describes")
    return read_safetensors(weights)


def build(make: Callable[[], Model], layers: int, tensors: dict[str, torch.Tensor], where: Path) -> Model:
    """A model with these weights, all of them and no others.

    Names and shapes are compared before it is made, on the meta device, where tensors take no memory: a description of
    another model costs nothing, however large that would be.

    Args:
        make: the model, of any weights.
        layers: at least so many tensors the model has.
        tensors: its weights by name.
        where: they are from, for messages.

    Raises:
        CheckpointError: they do not fit.
    """
    if layers > len(tensors):
        raise CheckpointError(
            f"{where} does not fit its configuration: {len(tensors)} tensors cannot be those of {layers} layers"
        )
    with torch.device("meta"):
        fill(make(), {name: value.to("meta") for name, value in tensors.items()}, where)
    model = make()
    fill(model, tensors, where)
    return model


def fill(model: nn.Module, tensors: dict[str, torch.Tensor], where: Path) -> None:
    """Gives a model these weights, all of them and no others.

    Raises:
        CheckpointError: they do not fit.
    """
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(f"{where} does not fit its configuration: {misfit(error)}") from error


def misfit(error: RuntimeError) -> str:
    """The first of what `load_state_dict` complains of."""
    lines = str(error).splitlines()
    return textwrap.shorten(lines[1] if len(lines) > 1 else str(error), 250, placeholder=" ...")


def _load_training_checkpoint(path: Path) -> Tokenizer:
    checkpoint = read_checkpoint(path)
    described = checkpoint.get("mergevq")
    config = described.get("config") if isinstance(described, dict) else None
    if not isinstance(config, dict) or "model" not in config:
        raise CheckpointError(f"{path} is not a training checkpoint of a mergevq tokenizer")
    averaged = {
        name.removeprefix("ema."): value
        for name, value in checkpoint["state_dict"].items()
        if isinstance(name, str) and name.startswith("ema.") and isinstance(value, torch.Tensor)
    }
    return _filled(config["model"], averaged, path)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A training checkpoint's tensors and plain values; nothing in it is executed.

    Raises:
        CheckpointError: the file is truncated, or holds pickled objects other than tensors.
    """
    checkpoint = read_torch(path)
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        raise CheckpointError(f"{path} is not a training checkpoint")
    return checkpoint


def _filled(config: Any, tensors: dict[str, torch.Tensor], where: Path) -> Tokenizer:
    """A tokenizer of this configuration with these weights, all of them and no others."""
    if not isinstance(config, dict):
        raise CheckpointError(f"{where} comes without a configuration")
    try:
        described = from_dict(TokenizerConfig, config)
    except MergeVQError as error:
        raise CheckpointError(f"{where} has a configuration that cannot be used: {error}") from error
    return build(lambda: Tokenizer(described), described.layers, tensors, where)


def fingerprint(tokenizer: Tokenizer) -> str:
    """SHA-256 of the weights, by name, that decide what a code and a source map mean.

    Those are the encoder's, the quantiser's and the decoder's; a folder and a checkpoint of one model have
    the same, and so has a model that was saved in half precision and is loaded in float32: values count, not how
    many bits they are held in. Source recovery is left out: tokens stay valid while it is fine-tuned.
    """
    digest = hashlib.sha256()
    for name, value in sorted(tokenizer.state_dict().items()):
        if not name.startswith("recovery."):
            value = value.detach().float() if value.is_floating_point() else value
            digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
            digest.update(value.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def check_fingerprint(tokenizer: Tokenizer, expected: str) -> None:
    """Makes sure that a tokenizer is the one that tokens were made by.

    Raises:
        CheckpointError: it is another.
    """
    check_maker(fingerprint(tokenizer), expected)
