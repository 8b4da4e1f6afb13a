"""The models that run times are compared on: presets with random weights, or a checkpoint of the user's.

The environment says which, as it does for all suites: MERGEVQ_BENCH for the presets, MERGEVQ_BENCH_CHECKPOINT for a
checkpoint instead of them.
"""

from __future__ import annotations

import functools
import os
from typing import cast

import torch

import mergevq
from mergevq.bench.subjects.cases import FULL
from mergevq.generation.pipeline import ImageGenerator
from mergevq.generator_config import GeneratorKind
from mergevq.models.tokenizer.tokenizer import Tokenizer
from mergevq.presets import preset

CHECKPOINT = os.environ.get("MERGEVQ_BENCH_CHECKPOINT")

SIZE = "B" if FULL else "nano"
"""Of the generators of random weights."""

NARROW = "narrow tiny-32"
"""The preset tiny-32 with few channels and blocks, so that a smoke test need not wait for its export."""

_FEWER = {
    **{
        f"{part}.{key}": value
        for part in ("encoder", "decoder")
        for key, value in {"channels": 8, "width": 32, "heads": 1, "depth": 1}.items()
    },
    "recovery.width": 32,
    "recovery.heads": 1,
    "recovery.depth": 1,
}


def subjects() -> list[tuple[str, int]]:
    """The tokenizers to time, and the kept counts to time them at, the usual one of each first."""
    if CHECKPOINT:
        config = tokenizer("").config
        return [(config.name, config.merge.keep)]
    if not FULL:
        return [(NARROW, preset("tiny-32").merge.keep)]
    return [("G+R", 144), ("G+R", 36), ("R", 36), ("R", 144)]


def kinds() -> list[GeneratorKind]:
    """The generators to time."""
    given = _given(CHECKPOINT) if CHECKPOINT else None
    if given is not None:
        return [given.model.config.kind] if isinstance(given, ImageGenerator) else []
    return ["raster", "merge_ar"] if FULL else ["merge_ar"]


def positions() -> int:
    """L of the generators to time."""
    config = tokenizer("").config if CHECKPOINT else preset("G+R" if FULL else "tiny-32")
    return config.length


def tokenizer(name: str) -> Tokenizer:
    """A tokenizer of `subjects`, on the CPU."""
    if not CHECKPOINT:
        return _random_tokenizer(name)
    found = _given(CHECKPOINT)
    return found.tokenizer if isinstance(found, ImageGenerator) else found


def generator(kind: str) -> ImageGenerator:
    """A generator of `kinds`, on the CPU."""
    given = _given(CHECKPOINT) if CHECKPOINT else None
    return given if isinstance(given, ImageGenerator) else _random_generator(kind)


@functools.cache
def _given(checkpoint: str) -> Tokenizer | ImageGenerator:
    return mergevq.load(checkpoint)


@functools.lru_cache(maxsize=1)
def _random_tokenizer(name: str) -> Tokenizer:
    torch.manual_seed(0)
    if name == NARROW:
        return mergevq.create("tiny-32", **_FEWER).eval()
    return mergevq.create(name).eval()


@functools.lru_cache(maxsize=1)
def _random_generator(kind: str) -> ImageGenerator:
    codes = _random_tokenizer("G+R" if FULL else NARROW)
    torch.manual_seed(0)
    made = mergevq.create_generator(SIZE, cast(GeneratorKind, kind), codes)
    for weight in made.model.head.outputs.parameters():  # these are zero in a new one
        torch.nn.init.normal_(weight, std=0.02)
    return made
