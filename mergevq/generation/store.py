"""Saving and loading generators with their tokenizers; `load` and `save` take tokenizers too.

A generator's folder holds config.json, model.safetensors, and the tokenizer whose codes it speaks in
tokenizer/, so that it makes images without knowing anything else. As with tokenizers, files are written
whole or not at all, and the configuration records the SHA-256 of the weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mergevq.config import from_dict, to_dict
from mergevq.errors import CheckpointError, MergeVQError, UsageError
from mergevq.generation.pipeline import ImageGenerator
from mergevq.generator_config import GeneratorConfig, GeneratorKind, generator_config
from mergevq.models import store
from mergevq.models.checkpoint_path import TOKENIZER, checkpoint_path
from mergevq.models.generators.autoregressive import Generator
from mergevq.models.tokenizer.tokenizer import Tokenizer
from mergevq.storage.documents import DocumentError, read_json
from mergevq.storage.files import expanded, read_steadily

FORMAT = "mergevq-generator"


def create_generator(size: str, kind: GeneratorKind, tokenizer: Tokenizer, **changes: Any) -> ImageGenerator:
    """A generator with random weights for the codes of a tokenizer.

    Args:
        size: "B", "L", "XL", "XXL", or for experiments "nano", "tiny", "small".
        kind: "raster", "merge_ar" or "rand_ar".
        tokenizer: stays the caller's; it is not copied.
        changes: other values for fields of `GeneratorConfig`.

    Raises:
        UsageError: an unknown size, kind or field; the nearest one is named.
    """
    model = Generator(generator_config(size, kind, tokenizer.config, **changes))
    return ImageGenerator(model, tokenizer).to(tokenizer.device).eval()


def save(thing: Tokenizer | ImageGenerator, folder: str | Path) -> None:
    """Writes a tokenizer, or a generator with its tokenizer, to a folder.

    Args:
        thing: on any device; the files hold CPU tensors.
        folder: made where it is missing.

    Raises:
        OutputError: it cannot be written; what was there before is unchanged.
    """
    if isinstance(thing, Tokenizer):
        store.save(thing, folder)
        return
    folder = expanded(folder)
    with store.writing(folder):
        (folder / TOKENIZER).mkdir(parents=True, exist_ok=True)
    store.save(thing.tokenizer, folder / TOKENIZER)
    save_model(thing.model, store.fingerprint(thing.tokenizer), folder)


def save_model(model: Generator, tokenizer: str, folder: Path) -> None:
    """Writes the generator alone.

    Args:
        model: on any device.
        tokenizer: the fingerprint of the tokenizer whose codes it speaks.
        folder: that of the generator, which has the tokenizer already.

    Raises:
        OutputError: it cannot be written; what was there before is unchanged.
    """
    store.write_model(model, folder, FORMAT, tokenizer=tokenizer, config=to_dict(model.config))


def load(where: str | Path) -> Tokenizer | ImageGenerator:
    """A trained tokenizer or generator, on the CPU, in evaluation mode.

    Args:
        where: a folder written by `save` (a training run is one too), a tokenizer's training checkpoint (.ckpt;
            its averaged weights), or hf://user/name on the Hugging Face hub. ~ is the home folder.

    Raises:
        CheckpointError: nothing is there, or a file is truncated, changed, or not of this package.
    """
    path = checkpoint_path(where)
    return load_generator(path) if is_generator(path) else store.load(path)


def is_generator(folder: Path) -> bool:
    """Whether this folder says of itself that it holds a generator."""
    try:
        described = read_json(folder / store.CONFIG)
    except DocumentError:
        return False
    return isinstance(described, dict) and described.get("format") == FORMAT


def load_generator(where: str | Path) -> ImageGenerator:
    """A trained generator with its tokenizer, on the CPU, in evaluation mode.

    Raises:
        CheckpointError: there is none, a file is truncated or changed, or the tokenizer is another one.
    """
    folder = checkpoint_path(where)
    parts = (folder, folder / TOKENIZER)
    files = [part / name for part in parts for name in (store.CONFIG, store.WEIGHTS)]
    return read_steadily(files, lambda: _loaded(folder))


def _loaded(folder: Path) -> ImageGenerator:
    described, tensors = store.read_model(folder, FORMAT)
    try:
        config = from_dict(GeneratorConfig, described.get("config", {}))
    except (MergeVQError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder} has a configuration that cannot be used: {error}") from error
    model = store.build(lambda: Generator(config), config.layers, tensors, folder / store.WEIGHTS)
    tokenizer = store.load(folder / TOKENIZER)
    if store.fingerprint(tokenizer) != described.get("tokenizer"):
        raise CheckpointError(
            f"{folder / TOKENIZER} is not the tokenizer that this generator was trained with"
        )
    try:
        return ImageGenerator(model, tokenizer).eval()
    except UsageError as error:
        raise CheckpointError(f"{folder} cannot be used: {error}") from error
