"""The one description of a class-conditional generator, and the named sizes.

Three generators share one Transformer and differ only in how tokens are laid out as a sequence, in who
attends to whom, and in what the cache keeps: `raster` (LlamaGen's order over all L positions),
`merge_ar` (the same order; duplicates leave the context) and `rand_ar` (the K kept tokens, any order).

Legend: L positions of the grid, K kept tokens, D width, d code bits, P sub-codes of a code.
"""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from mergevq.config import Blocks, Channels, TokenizerConfig
from mergevq.errors import ConfigError, UsageError, shown, unknown_name
from mergevq.ranges import Length, PartialShare, Range, check_numbers

GeneratorKind = Literal["raster", "merge_ar", "rand_ar"]
HEAD_WIDTH = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneratorConfig:
    """A decoder-only Transformer over the codes of one tokenizer.

    Source: LlamaGen (arXiv:2406.06525) for the backbone; Open-MAGVIT2 (arXiv:2409.04410) for the sub-codes.
    """

    name: str = "L"
    """The size's name."""
    kind: GeneratorKind = "merge_ar"
    """The order of the tokens and what of them stays in the context."""
    width: Channels = 1024
    """D, a multiple of 64, which is the width of a head."""
    depth: Blocks = 24
    """Transformer blocks."""
    split: Annotated[tuple[Annotated[int, Range(1, 16)], ...], Length(1, 31)] = (9, 9)
    """Bits of each sub-code, lowest bits first; their sum is d. (14,) is one vocabulary of 16384."""
    head_depth: Blocks = 2
    """Blocks of the small causal Transformer over the sub-codes of one token."""
    classes: Annotated[int, Range(1, 10**6)] = 1000
    """Number of classes; one more embedding stands for none."""
    grid: Annotated[int, Range(1, 4096)] = 16
    """Positions a side; L is its square."""
    counts: Annotated[tuple[Annotated[int, Range(1, 2**24)], ...], Length(1, 2**16)] = (144,)
    """The kept counts of the tokens that it is trained on, ascending."""
    window: Annotated[int, Range(1, 2**24)] = 16
    """merge_ar: how many of the latest tokens stay visible whether they are duplicates or not, itself counted."""
    dropout: PartialShare = 0.1
    """Share of activations dropped after the embeddings, the attention and the MLP."""
    class_dropout: PartialShare = 0.1
    """Share of training samples whose class is withheld, which guidance needs."""
    prefix_rotation: Literal["identity", "zero"] = "identity"
    """How rotary embedding treats class and instruction; LlamaGen's weights expect "zero"."""
    head_rotation: Literal["identity", "zero"] = "identity"
    """How the small Transformer over the sub-codes treats the context that it reads first: not at all, or multiplied
    by zero in queries and keys, as Open-MAGVIT2's weights expect."""

    def __post_init__(self) -> None:
        if self.kind not in typing.get_args(GeneratorKind):
            raise ConfigError(unknown_name("generator kind", self.kind, typing.get_args(GeneratorKind)))
        check_numbers(self, "")
        if self.width % HEAD_WIDTH:
            raise ConfigError(f"width is {self.width}; it must be a multiple of {HEAD_WIDTH}")
        for name in ("prefix_rotation", "head_rotation"):
            if getattr(self, name) not in ("identity", "zero"):
                raise ConfigError(f"{name} is {getattr(self, name)!r}; it must be identity or zero")
        self._check_codes()

    def _check_codes(self) -> None:
        if list(self.counts) != sorted(set(self.counts)):
            raise ConfigError(f"counts are {shown(self.counts)}; they must ascend")
        if self.counts[-1] > self.length:
            raise ConfigError(
                f"counts {shown(self.counts)} must lie between 1 and the {self.length} positions"
            )

    @property
    def heads(self) -> int:
        """Attention heads."""
        return self.width // HEAD_WIDTH

    @property
    def hidden(self) -> int:
        """Width of the SwiGLU: 8/3 of D, rounded up to a multiple of 256."""
        return -(-int(8 * self.width / 3) // 256) * 256

    @property
    def bits(self) -> int:
        """d, bits of a code."""
        return sum(self.split)

    @property
    def layers(self) -> int:
        """Blocks of both Transformers, each of which has weights."""
        return self.depth + self.head_depth

    @property
    def length(self) -> int:
        """L, positions of the grid."""
        return self.grid**2


# Width and depth; B to XXL are LlamaGen's, the others are for experiments on a CPU.
_SIZES = {
    "nano": (128, 4),
    "tiny": (192, 6),
    "small": (384, 8),
    "B": (768, 12),
    "L": (1024, 24),
    "XL": (1280, 36),
    "XXL": (1536, 48),
}


def generator_sizes() -> list[str]:
    """The names that `create_generator` takes."""
    return list(_SIZES)


def generator_config(
    size: str, kind: GeneratorKind, tokenizer: TokenizerConfig, **changes: Any
) -> GeneratorConfig:
    """The configuration of a size for the codes of a tokenizer.

    Args:
        size: a name of `generator_sizes`.
        kind: "raster", "merge_ar" or "rand_ar".
        tokenizer: decides the grid, the split of its bits into two sub-codes, and the kept count.
        changes: other values for fields.

    Raises:
        UsageError: an unknown size or field; the nearest one is named.
    """
    if size not in _SIZES:
        raise UsageError(unknown_name("generator size", size, _SIZES))
    fields = [field.name for field in dataclasses.fields(GeneratorConfig)]
    for name in changes:
        if name not in fields:
            raise ConfigError(unknown_name("generator setting", name, fields))
    width, depth = _SIZES[size]
    bits = tokenizer.quantizer.bits
    settings: dict[str, Any] = {
        "name": size,
        "kind": kind,
        "width": width,
        "depth": depth,
        "head_depth": 1 if width < 768 else 2,
        "split": (bits - bits // 2, bits // 2) if bits > 1 else (1,),
        "grid": tokenizer.grid,
        "counts": (tokenizer.merge.keep,),
    }
    return GeneratorConfig(**settings | changes)
