"""What is asked of a generator, and what it answers with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch

from mergevq.generation.guidance import GuidanceSchedule, check_guidance
from mergevq.generation.settings import CacheUse as CacheUse
from mergevq.generation.settings import Questions, Sampling


@dataclass(frozen=True, kw_only=True)
class Request:
    """A batch of images to generate.

    Attributes:
        labels: (B,) int64 classes.
        keep: (B,) int64 kept counts; raster takes no notice of them.
        seeds: one a row.
        sampling: how codes are drawn.
        guidance: the scale of classifier-free guidance; 1 is none, and costs one pass instead of two.
        guidance_schedule: "constant", or "linear" from 1 to the scale.
        questions: what a question of rand_ar sees of those asked with it.
        static_shapes: whether the passes of raster and merge_ar are to have few different shapes, for compilers and
            devices that prepare themselves for each; attention then reads up to 127 slots too many.
        progress: called with the number of passes done and the number of all.
    """

    labels: torch.Tensor
    keep: torch.Tensor
    seeds: list[int]
    sampling: Sampling = field(default_factory=Sampling)
    guidance: float = 1.0
    guidance_schedule: GuidanceSchedule = "constant"
    questions: Questions = "independent"
    static_shapes: bool = False
    progress: Callable[[int, int], None] | None = None

    def __post_init__(self) -> None:
        check_guidance(self.guidance, self.guidance_schedule)

    @property
    def guided(self) -> bool:
        """Whether a second half of rows, without class, goes along."""
        return self.guidance != 1

    def rows(self, no_class: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Labels and kept counts of all rows of a pass: (B,), or (2 B,) with `no_class` in the second half."""
        if not self.guided:
            return self.labels, self.keep
        return torch.cat([self.labels, torch.full_like(self.labels, no_class)]), self.keep.repeat(2)

    def only(self, rows: list[int], keep: int) -> Request:
        """The request of some of the rows, all of which keep so many tokens."""
        labels = self.labels[rows]
        seeds = [self.seeds[row] for row in rows]
        return replace(self, labels=labels, keep=torch.full_like(labels, keep), seeds=seeds)

    def report(self, done: int, passes: int) -> None:
        """Tells how far it is."""
        if self.progress is not None:
            self.progress(done, passes)
