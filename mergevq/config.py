"""The one description of a tokenizer: frozen dataclasses, one a part.

A preset is a function that returns a `TokenizerConfig`; YAML files and command-line flags are other
ways to write one. A checkpoint carries its configuration as plain JSON (`to_dict`, `from_dict`).

Legend: B batch, C channels, H W pixels, h w latent grid, L = h*w tokens, K kept tokens, D width,
d code bits.
"""

from __future__ import annotations

import contextlib
import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar

from mergevq.errors import ConfigError, shown, unknown_name
from mergevq.ranges import Length, Range, check_numbers

Schedule = Literal["square", "linear", "constant"]
Channels = Annotated[int, Range(1, 2**16)]
"""Features of a layer."""
Blocks = Annotated[int, Range(1, 1024)]
"""Attention blocks, one after another."""
Heads = Annotated[int, Range(1, 1024)]
"""Attention heads, side by side."""
Multipliers = Annotated[tuple[Annotated[int, Range(1, 1024)], ...], Length(0, 16)]
"""Channels of CNN stages."""
Ratio = Annotated[float, Range(0, 64, ends="(]")]
"""The hidden width of an MLP in units of its width."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderConfig:
    """Pixels to merged tokens: a stem, CNN stages, then ToMe attention blocks."""

    patch: Annotated[int, Range(1, 256)] = 1
    """Pixels a side that the stem folds into one position; 1 is a 3x3 convolution, 16 alone is a ViT."""
    channels: Channels = 64
    """Base channels of the CNN stages."""
    multipliers: Multipliers = (1, 2, 4, 8)
    """Channels of each CNN stage in units of `channels`; each stage but the last halves the resolution.
    Empty: no CNN, the stem feeds the attention blocks."""
    blocks: Annotated[int, Range(0, 256)] = 4
    """Residual blocks in each CNN stage."""
    width: Channels = 512
    """D, the width of the attention blocks."""
    depth: Blocks = 12
    """Number of ToMe attention blocks."""
    heads: Heads = 8
    """Attention heads; must divide `width`."""
    mlp_ratio: Ratio = 4.0
    """Hidden width of the MLP in units of `width`."""
    layer_scale: Annotated[float, Range(0, 100)] = 1e-5
    """Initial value of LayerScale."""

    def __post_init__(self) -> None:
        check_numbers(self, "encoder")
        _check_blocks(self, "encoder")

    @property
    def stride(self) -> int:
        """Pixels a side for each latent position."""
        return self.patch * 2 ** max(len(self.multipliers) - 1, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class MergeConfig:
    """How many tokens are kept, and how the merging is spread over the blocks."""

    keep: Annotated[int, Range(1, 2**24)] = 256
    """K at the preset's resolution; `encode(keep=None)` uses it."""
    schedule: Schedule = "square"
    """Shape of the numbers merged a block over the depth."""
    locality: Annotated[float, Range(0, 10**6)] = 0.0
    """How much nearness on the grid counts beside the similarity of keys; 0 is the paper's matching. Regions that
    hang together are easier to recover from the codes alone."""

    def __post_init__(self) -> None:
        check_numbers(self, "merge")
        _check_choice("merge.schedule", self.schedule, typing.get_args(Schedule))


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantizerConfig:
    """Look-up free quantisation (LFQ) of the merged tokens."""

    bits: Annotated[int, Range(1, 31)] = 18
    """d: code dimensions of one bit each; the vocabulary has 2^d entries."""

    def __post_init__(self) -> None:
        check_numbers(self, "quantizer")


@dataclass(frozen=True, kw_only=True, slots=True)
class RecoveryConfig:
    """The source recovery model: which kept token covers each position."""

    width: Channels = 512
    """Width of the Transformer decoder."""
    depth: Blocks = 2
    """Number of Transformer decoder blocks."""
    heads: Heads = 8
    """Attention heads; must divide `width`."""
    mlp_ratio: Ratio = 2.0
    """Hidden width of the MLP in units of `width`."""

    def __post_init__(self) -> None:
        check_numbers(self, "recovery")
        _check_heads(self, "recovery")
        if self.width % 8:
            raise ConfigError(
                f"recovery.width {self.width} must be a multiple of 8 for the codes of ranks and positions"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderConfig:
    """Codes on the grid to pixels: attention blocks with MixFFN, then CNN stages upwards."""

    patch: Annotated[int, Range(1, 256)] = 1
    """Pixels a side that the last layer unfolds from one position."""
    channels: Channels = 64
    """Base channels of the CNN stages."""
    multipliers: Multipliers = (1, 2, 4, 8)
    """Channels of each stage in units of `channels`, from the pixels to the grid, as in the encoder."""
    blocks: Annotated[int, Range(0, 256)] = 4
    """Residual blocks in the stage nearest the pixels; the other stages have one more."""
    width: Channels = 512
    """Width of the attention blocks."""
    depth: Blocks = 12
    """Number of attention blocks."""
    heads: Heads = 8
    """Attention heads; must divide `width`."""
    mlp_ratio: Ratio = 4.0
    """Hidden width of the MixFFN in units of `width`."""
    layer_scale: Annotated[float, Range(0, 100)] = 1e-5
    """Initial value of LayerScale."""

    def __post_init__(self) -> None:
        check_numbers(self, "decoder")
        _check_blocks(self, "decoder")

    @property
    def stride(self) -> int:
        """Pixels a side for each latent position."""
        return self.patch * 2 ** max(len(self.multipliers) - 1, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerConfig:
    """A whole tokenizer. Its parts stand in the order of the data."""

    name: str = "custom"
    """The preset that this configuration started from."""
    image_size: Annotated[int, Range(1, 2**14)] = 256
    """Pixels a side that the preset is made for; other sizes that fit the grid are accepted."""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """Pixels to tokens."""
    merge: MergeConfig = field(default_factory=MergeConfig)
    """Tokens to fewer tokens."""
    quantizer: QuantizerConfig = field(default_factory=QuantizerConfig)
    """Tokens to codes."""
    recovery: RecoveryConfig = field(default_factory=RecoveryConfig)
    """Codes to the source map."""
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    """Codes and source map to pixels."""

    def __post_init__(self) -> None:
        check_numbers(self, "")
        if self.encoder.stride != self.decoder.stride:
            raise ConfigError(
                f"the encoder folds {self.encoder.stride} px a side into a position and the decoder "
                f"unfolds {self.decoder.stride}; patch and the number of multipliers must agree"
            )
        if self.image_size % self.stride:
            raise ConfigError(f"image_size {self.image_size} is not a multiple of the stride {self.stride}")
        if self.merge.keep > self.length:
            raise ConfigError(f"merge.keep {self.merge.keep} exceeds the {self.length} positions of the grid")

    @property
    def stride(self) -> int:
        """Pixels a side for each latent position."""
        return self.encoder.stride

    @property
    def grid(self) -> int:
        """Latent positions a side at the preset's resolution."""
        return self.image_size // self.stride

    @property
    def layers(self) -> int:
        """Blocks of all parts, each of which has weights."""
        stages = sum(len(part.multipliers) * part.blocks for part in (self.encoder, self.decoder))
        return stages + self.encoder.depth + self.recovery.depth + self.decoder.depth

    @property
    def length(self) -> int:
        """L, latent positions at the preset's resolution."""
        return self.grid**2


ConfigT = TypeVar("ConfigT")


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as plain JSON values (tuples become lists)."""
    out: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            value = to_dict(value)
        elif isinstance(value, tuple):
            value = list(value)
        out[item.name] = value
    return out


def from_dict(kind: type[ConfigT], values: Mapping[str, Any], where: str = "") -> ConfigT:
    """The configuration that `values` describes; missing keys take their defaults.

    Raises:
        ConfigError: a key is unknown (the nearest valid one is named) or missing, or a value has the wrong type.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"a group of keys is wanted, not {shown(values)}")
    hints = typing.get_type_hints(kind)
    known = [item.name for item in dataclasses.fields(kind)]  # type: ignore[arg-type]  # always a dataclass
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        path = f"{where}{key}"
        if key not in known:
            raise ConfigError(unknown_name("key", path, [f"{where}{name}" for name in known]))
        arguments[key] = _coerce(hints[key], value, path)
    for item in dataclasses.fields(kind):  # type: ignore[arg-type]
        required = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        if required and item.name not in arguments:
            raise ConfigError(f"{where}{item.name} is missing")
    return kind(**arguments)


def override(config: ConfigT, changes: Mapping[str, Any]) -> ConfigT:
    """A copy of `config` with dotted keys replaced: `{"encoder.depth": 4}`.

    Raises:
        ConfigError: a key is unknown or a value does not fit.
    """
    values = to_dict(config)
    for path, value in changes.items():
        node = values
        *parents, leaf = path.split(".")
        for depth, parent in enumerate(parents):
            if not isinstance(node.get(parent), dict):
                prefix = "".join(f"{name}." for name in parents[:depth])
                groups = [f"{prefix}{name}" for name, child in node.items() if isinstance(child, dict)]
                raise ConfigError(unknown_name("key", path, groups or [f"{prefix}{name}" for name in node]))
            node = node[parent]
        if isinstance(node.get(leaf), dict) and isinstance(value, Mapping):
            value = {**node[leaf], **value}
        node[leaf] = value
    return from_dict(type(config), values)


def _coerce(hint: Any, value: Any, path: str) -> Any:
    """`value` as the type that the field declares."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _group(hint, value, path)
    if origin in (typing.Union, types.UnionType):  # an optional value; nothing else is declared
        return None if value is None else _coerce(arguments[0], value, path)
    if origin is Literal:
        # YAML reads a choice such as 32 as a number.
        choice = value if isinstance(value, str) else shown(value)
        _check_choice(path, choice, arguments)
        return choice
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{path} must be a list, not {shown(value)}")
        return tuple(_coerce(arguments[0], item, path) for item in value)
    return _scalar(hint, value, path)


def _group(hint: type[ConfigT], value: Any, path: str) -> ConfigT:
    """A nested configuration, given as one or as a mapping."""
    if isinstance(value, hint):
        return value
    if not isinstance(value, Mapping):
        raise ConfigError(f"{path} must be a group of keys, not {shown(value)}")
    return from_dict(hint, value, f"{path}.")


def _scalar(hint: type, value: Any, path: str) -> Any:
    """A string, a truth value or a number; whole numbers and YAML 1.1's "1e-4" are floats where one is due."""
    if hint is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        with contextlib.suppress(ValueError, OverflowError):
            return float(value)
    fits = isinstance(value, (int, float) if hint is float else hint)
    if not fits or (hint in (int, float) and isinstance(value, bool)):
        raise ConfigError(f"{path} must be {hint.__name__}, not {shown(value)}")
    return value


def _check_choice(path: str, value: Any, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(unknown_name(f"value of {path}", str(value), known))


def _check_heads(config: Any, where: str) -> None:
    if config.width % config.heads:
        raise ConfigError(f"{where}.width {config.width} is not divisible by {where}.heads {config.heads}")
    if config.width * config.mlp_ratio < 1:
        raise ConfigError(
            f"{where}.mlp_ratio {config.mlp_ratio} leaves nothing of {where}.width {config.width}"
        )


def _check_blocks(config: Any, where: str) -> None:
    _check_heads(config, where)
    if config.width % 4:
        raise ConfigError(f"{where}.width {config.width} must be a multiple of 4 for the 2-D position code")
    if config.multipliers and config.blocks == 0:
        raise ConfigError(f"{where}.blocks must be positive where there are CNN stages")
