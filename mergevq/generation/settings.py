"""What may be asked of a generator, the numbers that its draws come from, what it took. Needs no PyTorch.

Every row brings its own uniform numbers, NumPy's, so that a seed gives the same image in whatever batch it stands, on
whatever device, and from exported graphs too.

Legend: R rows, L positions, K kept tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

import numpy as np

from mergevq.errors import UsageError, unknown_name
from mergevq.generation.guidance import GuidanceSchedule
from mergevq.generator_config import GeneratorConfig, GeneratorKind
from mergevq.inputs import checked_integer, integers
from mergevq.ranges import Range, check_numbers

Questions = Literal["independent", "causal"]
"""What a question of rand_ar sees of those asked in the same pass: nothing, or those before it, as in RandAR."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How a code is chosen from its logits."""

    temperature: Annotated[float, Range(0, 10**6)] = 1.0
    """Divides the logits; 0 takes the likeliest code."""
    top_k: Annotated[int, Range(0, 10**9)] = 0
    """Only the k likeliest may be drawn, and those as likely as the k-th; 0 is no limit."""
    top_p: Annotated[float, Range(0, 1, ends="(]")] = 1.0
    """Of these, only the likeliest that together reach this probability."""

    def __post_init__(self) -> None:
        check_numbers(self, "")


@dataclass(frozen=True, slots=True)
class CacheUse:
    """What a generation took.

    Attributes:
        slots: tokens that there was memory for at the end, a row.
        bytes: of keys and values, all layers and rows together.
        passes: how often the Transformer ran.
    """

    slots: int
    bytes: int
    passes: int


def row_seeds(seed: Any, rows: int) -> list[int]:
    """A seed for each row: those given, or `seed`, `seed` + 1, ...

    Raises:
        UsageError: not one seed a row, or one that is no integer.
    """
    found = integers("seeds", seed)
    seeds = [found + row for row in range(rows)] if isinstance(found, int) else found
    if len(seeds) != rows:
        raise UsageError(f"{len(seeds)} seeds for {rows} labels; give one seed, or one a label")
    return seeds


def row_uniform(seeds: Sequence[int], *shape: int) -> np.ndarray:
    """(R, *shape) float32 uniform numbers in [0, 1), each row from its own seed, of which 64 bits count."""
    rows = [np.random.default_rng(seed % 2**64).random(shape, dtype=np.float32) for seed in seeds]
    return np.stack(rows)


def layout_seeds(seeds: Sequence[int]) -> list[int]:
    """The seeds of another stream than that of the codes, for drawing rand_ar's sets of positions."""
    return [seed + _LAYOUTS for seed in seeds]


def schedule_of(kind: GeneratorKind, asked: GuidanceSchedule | None) -> GuidanceSchedule:
    """The guidance schedule that was asked for, or the kind's own."""
    return asked or ("linear" if kind == "rand_ar" else "constant")


def known_classes(labels: Any, config: GeneratorConfig) -> list[int]:
    """The classes of a batch.

    Args:
        labels: a sequence, an array or a tensor of integers.
        config: of the generator.

    Raises:
        UsageError: there is none, one is no integer, or the generator does not know it.
    """
    classes = integers("labels", labels)
    if isinstance(classes, int) or not classes:
        raise UsageError(f"labels are {classes}; a list of at least one class is wanted")
    for label in classes:
        if not 0 <= label < config.classes:
            raise UsageError(f"there is no class {label}; the generator knows 0 to {config.classes - 1}")
    return classes


def kept_counts(keep: Any, rows: int, config: GeneratorConfig) -> list[int]:
    """A kept count for each row; 0 where rand_ar is free to draw one.

    Args:
        keep: an integer for all, or one a row in a sequence, an array or a tensor; None leaves it to the kind.
        rows: R.
        config: of the generator.

    Raises:
        UsageError: what is no integer, a count that it was not trained with, or not one a row.
    """
    known = config.counts
    if keep is None:
        return [0 if config.kind == "rand_ar" else known[len(known) // 2]] * rows
    found = integers("kept counts", keep)
    counts = [found] * rows if isinstance(found, int) else found
    unseen = sorted(set(counts) - set(known))
    if unseen and config.kind != "raster":
        nearest = min(known, key=lambda count: abs(count - unseen[0]))
        raise UsageError(
            f"the generator was never trained with {unseen[0]} kept tokens; the nearest count is {nearest}"
        )
    if len(counts) != rows:
        raise UsageError(f"{len(counts)} kept counts for {rows} labels; give one, or one a label")
    return counts


def check_steps(steps: int | None, config: GeneratorConfig) -> None:
    """Raises UsageError for steps that are no number, or given to a kind that takes one a token."""
    if steps is None:
        return
    checked_integer("steps", steps)
    if config.kind != "rand_ar":
        raise UsageError(
            f"steps is {steps}; only rand_ar decodes several tokens a step, {config.kind} takes {config.length}"
        )


def check_questions(questions: str, config: GeneratorConfig) -> None:
    """Raises UsageError for a way of asking that does not exist, or that only rand_ar has."""
    known = get_args(Questions)
    if questions not in known:
        raise UsageError(unknown_name("way of asking questions", questions, known))
    if questions != known[0] and config.kind != "rand_ar":
        raise UsageError(
            f"questions are {questions!r}; only rand_ar asks any, {config.kind} decodes token by token"
        )


_LAYOUTS = 0x5EED << 32
