"""The named tokenizers: the paper's (Table A1), their width variants, and small ones for CPUs.

Each preset is a function of a few lines that returns a `TokenizerConfig`. Names are the paper's.
"""

from __future__ import annotations

from collections.abc import Callable

from mergevq.config import (
    DecoderConfig,
    EncoderConfig,
    MergeConfig,
    RecoveryConfig,
    TokenizerConfig,
)
from mergevq.errors import UsageError, unknown_name

_PRESETS: dict[str, Callable[[], TokenizerConfig]] = {}


def _preset(name: str) -> Callable[[Callable[[], TokenizerConfig]], Callable[[], TokenizerConfig]]:
    def register(build: Callable[[], TokenizerConfig]) -> Callable[[], TokenizerConfig]:
        _PRESETS[name] = build
        return build

    return register


def presets() -> list[str]:
    """The names that `create` takes; the number in a small preset's name is its image size."""
    return list(_PRESETS)


def preset(name: str) -> TokenizerConfig:
    """The configuration of a preset.

    Raises:
        UsageError: there is none of this name; the nearest one is suggested.
    """
    if name not in _PRESETS:
        raise UsageError(unknown_name("preset", name, _PRESETS))
    return _PRESETS[name]()


def _hybrid(
    name: str, *, channels: int, multipliers: tuple[int, ...], width: int, heads: int, keep: int
) -> TokenizerConfig:
    """CNN stages, then twelve ToMe blocks; the decoder mirrors them."""
    shape = {"channels": channels, "multipliers": multipliers, "width": width, "heads": heads}
    return TokenizerConfig(
        name=name,
        image_size=256,
        encoder=EncoderConfig(**shape),  # type: ignore[arg-type]  # one dict for both mirrored halves
        merge=MergeConfig(keep=keep),
        decoder=DecoderConfig(**shape),  # type: ignore[arg-type]
    )


@_preset("G")
def generation() -> TokenizerConfig:
    """Pure generation: 1024 positions kept as 256 tokens (paper: rFID 1.06 at 256, 0.54 at 1024)."""
    return _hybrid("G", channels=64, multipliers=(1, 2, 4, 8), width=512, heads=8, keep=256)


@_preset("G+R")
def generation_and_representation() -> TokenizerConfig:
    """Generation and representation: 256 positions kept as 144 (paper: rFID 1.48 at 144, 1.12 at 256)."""
    return _hybrid("G+R", channels=64, multipliers=(1, 1, 2, 4, 8), width=512, heads=8, keep=144)


@_preset("R")
def representation() -> TokenizerConfig:
    """Representation: a ViT-B keeps 36 of 256 positions (paper: linear probe 79.8, rFID 4.67 at 144)."""
    return TokenizerConfig(
        name="R",
        encoder=EncoderConfig(patch=16, multipliers=(), width=768, heads=12),
        merge=MergeConfig(keep=36),
        decoder=DecoderConfig(multipliers=(1, 1, 2, 4, 8)),
    )


@_preset("G-d32")
def generation_d32() -> TokenizerConfig:
    """G at half the base channels."""
    return _hybrid("G-d32", channels=32, multipliers=(2, 4, 8, 12), width=384, heads=8, keep=256)


@_preset("G+R-d32")
def generation_and_representation_d32() -> TokenizerConfig:
    """G+R at half the base channels."""
    return _hybrid("G+R-d32", channels=32, multipliers=(2, 2, 4, 8, 12), width=384, heads=8, keep=144)


@_preset("G-d96")
def generation_d96() -> TokenizerConfig:
    """G at one and a half times the base channels."""
    return _hybrid("G-d96", channels=96, multipliers=(1, 2, 4, 8), width=768, heads=12, keep=256)


@_preset("G+R-d96")
def generation_and_representation_d96() -> TokenizerConfig:
    """G+R at one and a half times the base channels."""
    return _hybrid("G+R-d96", channels=96, multipliers=(1, 1, 2, 4, 8), width=768, heads=12, keep=144)


@_preset("tiny-32")
def tiny_32() -> TokenizerConfig:
    """32 px, 64 positions, for tests and for experiments on a CPU."""
    return _small("tiny-32", image_size=32, keep=32, width=128, depth=4)


@_preset("small-64")
def small_64() -> TokenizerConfig:
    """64 px, 256 positions: the demo's tokenizer."""
    return _small("small-64", image_size=64, keep=128, width=128, depth=4)


def _small(name: str, *, image_size: int, keep: int, width: int, depth: int) -> TokenizerConfig:
    """A stem that folds 2 x 2 pixels, so that no layer runs at full resolution; two CNN stages.

    Merging prefers neighbours, so that a short training suffices to recover the source.
    """
    stages = {"patch": 2, "channels": 64, "multipliers": (1, 2), "blocks": 1}
    blocks = {"width": width, "depth": depth, "heads": width // 64, "layer_scale": 0.1}
    return TokenizerConfig(
        name=name,
        image_size=image_size,
        encoder=EncoderConfig(**stages, **blocks),  # type: ignore[arg-type]  # one dict for both halves
        merge=MergeConfig(keep=keep, locality=0.5),
        recovery=RecoveryConfig(width=width, heads=width // 64),
        decoder=DecoderConfig(**stages, **blocks),  # type: ignore[arg-type]
    )
