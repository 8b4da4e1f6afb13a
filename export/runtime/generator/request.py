"""What is asked of a generator of graphs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from mergevq.generation.guidance import GuidanceSchedule, check_guidance, guidance_at
from mergevq.generation.settings import Questions, Sampling


@dataclass(frozen=True, kw_only=True)
class ArrayRequest:
    """A batch of images to generate.

    Attributes:
        labels: (B,) int64 classes.
        keep: (B,) int64 kept counts.
        seeds: one a row.
        sampling: how codes are drawn.
        guidance: the scale of classifier-free guidance; 1 is none.
        guidance_schedule: "constant", or "linear" from 1 to the scale.
        questions: what a question of rand_ar sees of those asked with it.
        progress: called with the number of passes done and the number of all.
    """

    labels: np.ndarray
    keep: np.ndarray
    seeds: list[int]
    sampling: Sampling
    guidance: float
    guidance_schedule: GuidanceSchedule
    questions: Questions
    progress: Callable[[int, int], None] | None

    def __post_init__(self) -> None:
        check_guidance(self.guidance, self.guidance_schedule)

    def conditions(self, no_class: int) -> dict[str, np.ndarray]:
        """What a prefill is told: (B,) each, or (2 B,) with `no_class` in the second half where there is guidance."""
        if self.guidance == 1:
            return {"label": self.labels, "keep": self.keep}
        without = np.full_like(self.labels, no_class)
        return {"label": np.concatenate([self.labels, without]), "keep": np.tile(self.keep, 2)}

    def scale(self, done: float) -> float | None:
        """The scale of guidance when a share `done` of the tokens is there; None if there is none."""
        return guidance_at(self.guidance, self.guidance_schedule, done)

    def only(self, rows: np.ndarray) -> ArrayRequest:
        """The request of some of the rows."""
        seeds = [self.seeds[row] for row in rows]
        return replace(self, labels=self.labels[rows], keep=self.keep[rows], seeds=seeds)

    def report(self, done: int, passes: int) -> None:
        """Tells how far it is."""
        if self.progress is not None:
            self.progress(done, passes)
