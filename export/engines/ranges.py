"""How long the free axes of each graph may be in an engine: optimisation profiles out of the manifest.

Legend: L positions, K kept tokens, p tokens of a generator's prefix.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate

from mergevq.config import TokenizerConfig
from mergevq.errors import UsageError
from mergevq.export.manifest import GraphSpec, Manifest, TensorSpec
from mergevq.export.runtime.generator.cache import GROWTH
from mergevq.generator_config import GeneratorConfig
from mergevq.models.tokenizer.merge import fewest, merge_schedule

Range = tuple[int, int, int]
"""The least, the usual and the greatest length."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranges:
    """What engines are to take."""

    batch: Range = (1, 8, 32)
    """Images; a generator's graphs take two rows for each, as guidance needs."""
    keep: Range | None = None
    """Kept tokens, where a graph takes any; by default all that there are, and usually the preset's."""
    cache: int | None = None
    """The most tokens in a generator's cache; by default as many as a whole image can need."""

    def __post_init__(self) -> None:
        for name in ("batch", "keep"):
            given = getattr(self, name)
            if given is not None and not (len(given) == 3 and 1 <= given[0] <= given[1] <= given[2]):
                raise UsageError(
                    f"{name} is {','.join(map(str, given))}; the least, the usual and the greatest are wanted, "
                    "such as 1,8,32"
                )
        if self.cache is not None and self.cache < GROWTH + 2:
            raise UsageError(f"cache is {self.cache}; a generation needs {GROWTH + 2} at the least")


@dataclass(frozen=True, kw_only=True, slots=True)
class InputProfile:
    """What an input of an engine may be."""

    name: str
    values: bool
    """Whether the three speak of the values of a small integer input that decides shapes, and not of its shape."""
    least: tuple[int, ...]
    usual: tuple[int, ...]
    most: tuple[int, ...]


def profiles(manifest: Manifest, spec: GraphSpec, wanted: Ranges) -> tuple[InputProfile, ...]:
    """The profile of each input of a graph.

    Raises:
        UsageError: more kept tokens than there are, or a cache that is too small.
    """
    axes = _axes(manifest, spec, wanted)
    return tuple(
        _left(manifest.tokenizer, axes["keep"]) if tensor.name == "left" else _shapes(tensor, axes)
        for tensor in spec.inputs
    )


def _axes(manifest: Manifest, spec: GraphSpec, wanted: Ranges) -> dict[str, Range]:
    """The ranges of the named axes of a graph."""
    keep, length = wanted.keep or _all_counts(manifest), manifest.tokenizer.length
    if keep[2] > length:
        raise UsageError(f"keep goes up to {keep[2]}, and the tokenizer has {length} positions")
    least, usual, most = wanted.batch
    if manifest.generator is not None and manifest.generator.kind == "rand_ar":
        least = 1  # it takes the images of each kept count in turn
    axes = {"batch": (least, usual, most), "keep": keep}
    if manifest.generator is None or spec.role not in ("prefill", "step", "head"):
        return axes
    axes["batch"] = (least, 2 * usual, 2 * most)
    if spec.role == "step":
        return {**axes, **_step_axes(manifest.generator, wanted.cache)}
    if spec.role == "head" and manifest.generator.kind == "rand_ar":  # of all tokens of a pass at once
        axes["batch"] = (least, 2 * usual, 2 * most * manifest.generator.counts[-1])
    return axes


def _all_counts(manifest: Manifest) -> Range:
    """Kept tokens where nothing is said: raster and merge_ar decode a token a position."""
    length, generator = manifest.tokenizer.length, manifest.generator
    if generator is None:
        return 1, manifest.tokenizer.merge.keep, length
    return 1, generator.counts[-1] if generator.kind == "rand_ar" else length, length


def _step_axes(config: GeneratorConfig, cache: int | None) -> dict[str, Range]:
    """New and earlier tokens of a step."""
    lead = 2 if config.kind == "merge_ar" else 1
    if config.kind == "rand_ar":
        # A pass reads the tokens and questions of the one before, and asks its own: twice K in all, see `parallel`.
        tokens, taken = (1, 2, 2 * config.counts[-1]), lead + 1 + 2 * config.counts[-1]
    else:
        tokens, taken = (1, 1, 1), lead + config.length
    past = taken + GROWTH if cache is None else cache
    return {"tokens": tokens, "past": (1, max(past // 2, 1), past)}


def _shapes(tensor: TensorSpec, axes: Mapping[str, Range]) -> InputProfile:
    least, usual, most = (tuple(_length(axis, axes, number) for axis in tensor.shape) for number in range(3))
    return InputProfile(name=tensor.name, values=False, least=least, usual=usual, most=most)


def _length(axis: int | str, axes: Mapping[str, Range], number: int) -> int:
    if isinstance(axis, int):
        return axis
    return sum(axes[name][number] for name in axis.split(" + "))


def _left(config: TokenizerConfig, keep: Range) -> InputProfile:
    """What each block of an encoder may leave, over all K that can be reached."""
    length, blocks = config.length, config.encoder.depth

    def left(count: int) -> tuple[int, ...]:
        plan = merge_schedule(length, count, blocks, config.merge.schedule)
        return tuple(length - merged for merged in accumulate(plan))

    start = max(keep[0], fewest(length, blocks))
    if start > keep[2]:
        raise UsageError(f"keep goes up to {keep[2]}, and the encoder reaches {start} at the fewest")
    every = [left(count) for count in range(start, keep[2] + 1)]
    return InputProfile(
        name="left",
        values=True,
        least=tuple(map(min, zip(*every, strict=True))),
        usual=left(max(keep[1], start)),
        most=tuple(map(max, zip(*every, strict=True))),
    )
