"""A generator of graphs: classes to images, with NumPy arrays.

Legend: B images, S pixels a side, L positions, K kept tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mergevq.errors import CheckpointError, UnusableExportError
from mergevq.export.generator.layout_file import read_layouts
from mergevq.export.runtime.generator.layouts import draw_layouts
from mergevq.export.runtime.generator.parallel import generate_at
from mergevq.export.runtime.generator.request import ArrayRequest
from mergevq.export.runtime.generator.sequential import generate_raster
from mergevq.export.runtime.graphs import Graphs
from mergevq.export.runtime.tokenizer import ArrayTokenizer
from mergevq.generation.guidance import GuidanceSchedule
from mergevq.generation.settings import (
    CacheUse,
    Questions,
    Sampling,
    check_questions,
    check_steps,
    kept_counts,
    known_classes,
    row_seeds,
    schedule_of,
)
from mergevq.generator_config import GeneratorConfig, GeneratorKind
from mergevq.tokens import TokenArrays


@dataclass(frozen=True)
class GeneratedArrays:
    """Tokens of some of the images that were asked for.

    Attributes:
        rows: (b,) int64, which of the B images these are.
        tokens: of these images; raster and merge_ar give one token a position.
        cache: what it took to make them.
    """

    rows: np.ndarray
    tokens: TokenArrays
    cache: CacheUse


class ArrayGenerator:
    """What `ImageGenerator` is for tensors.

    Args:
        graphs: of a generator.
        config: of the generator.

    Attributes:
        config: of the generator.
        tokenizer: decodes; it has no encoder.
    """

    def __init__(self, graphs: Graphs, config: GeneratorConfig):
        self.graphs = graphs
        self.config = config
        self.tokenizer = ArrayTokenizer(graphs)
        if config.kind == "rand_ar":
            try:
                self._layouts = read_layouts(graphs.folder, config.length)
            except CheckpointError as error:
                raise UnusableExportError(str(error)) from error

    @property
    def kind(self) -> GeneratorKind:
        """raster, merge_ar or rand_ar."""
        return self.config.kind

    def generate(
        self,
        labels: np.ndarray | Sequence[int],
        *,
        seed: int | Sequence[int] = 0,
        guidance: float = 1.0,
        guidance_schedule: GuidanceSchedule | None = None,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        steps: int | None = None,
        questions: Questions = "independent",
        keep: int | Sequence[int] | np.ndarray | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> np.ndarray:
        """Images of classes; the same ones as `ImageGenerator.generate` gives, up to rounding.

        Args:
            labels: (B,) classes, in [0, classes).
            seed: image i has seed + i; or one seed an image.
            guidance: scale of classifier-free guidance; 1 is none and costs one pass instead of two.
            guidance_schedule: "constant", or "linear" from 1 up; by default linear for rand_ar, else constant.
            temperature: of the distribution that is drawn from; 0 takes the likeliest code.
            top_k: only the k likeliest of a vocabulary; 0 is no limit.
            top_p: only the likeliest that together reach this probability.
            steps: passes of rand_ar for K tokens, each decoding several; by default K. The others take L.
            questions: what a question of rand_ar sees of those asked in the same pass: "independent", nothing, which
                is what it was trained to answer; "causal", those before it, as RandAR's published numbers were made.
            keep: K for all or for each, one of those it was trained on. By default merge_ar takes the middle one,
                and rand_ar draws from those of the training images.
            progress: called with the number of passes done and the number of all.

        Returns:
            (B, 3, S, S) float32 in [-1, 1].

        Raises:
            UsageError: a class, a count, a number of steps or a setting that does not exist.
        """
        request = self.request(
            labels,
            seed=seed,
            guidance=guidance,
            guidance_schedule=guidance_schedule,
            sampling=Sampling(temperature=temperature, top_k=top_k, top_p=top_p),
            questions=questions,
            keep=keep,
            progress=progress,
        )
        size = self.tokenizer.config.image_size
        images = np.empty((len(request.labels), 3, size, size), dtype=np.float32)
        for part in self.generate_tokens(request, steps):
            images[part.rows] = self.tokenizer.decode(part.tokens)
        return images

    def request(
        self,
        labels: np.ndarray | Sequence[int],
        *,
        seed: int | Sequence[int] = 0,
        guidance: float = 1.0,
        guidance_schedule: GuidanceSchedule | None = None,
        sampling: Sampling | None = None,
        questions: Questions = "independent",
        keep: int | Sequence[int] | np.ndarray | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> ArrayRequest:
        """A request that this generator can meet; the arguments are those of `generate`.

        Raises:
            UsageError: a class, a count or a setting that does not exist.
        """
        classes = known_classes(labels, self.config)
        check_questions(questions, self.config)
        return ArrayRequest(
            labels=np.array(classes, dtype=np.int64),
            keep=np.array(kept_counts(keep, len(classes), self.config), dtype=np.int64),
            seeds=row_seeds(seed, len(classes)),
            sampling=sampling or Sampling(),
            guidance=guidance,
            guidance_schedule=schedule_of(self.kind, guidance_schedule),
            questions=questions,
            progress=progress,
        )

    def generate_tokens(self, request: ArrayRequest, steps: int | None = None) -> Iterator[GeneratedArrays]:
        """The tokens of a request, in one part, or in one for each kept count that rand_ar draws.

        Args:
            request: as `request` makes it.
            steps: passes of rand_ar, as in `generate`.

        Raises:
            UsageError: impossible steps, or a count of which rand_ar has no layout.
        """
        check_steps(steps, self.config)
        if self.kind != "rand_ar":
            yield self._in_raster_order(request)
            return
        positions = draw_layouts(*self._layouts, request.labels, request.keep, request.seeds)
        for count in np.unique(positions.sum(axis=1)).tolist():
            yield self._at_positions(request, positions, count, count if steps is None else steps)

    def _in_raster_order(self, request: ArrayRequest) -> GeneratedArrays:
        codes, cache = generate_raster(self.graphs, self.config, request)
        each = np.broadcast_to(np.arange(codes.shape[1]), codes.shape)
        tokens = TokenArrays(codes, each, np.ones_like(codes), self._grid)
        return GeneratedArrays(np.arange(len(codes)), tokens, cache)

    def _at_positions(
        self, request: ArrayRequest, positions: np.ndarray, count: int, steps: int
    ) -> GeneratedArrays:
        """Those rows of a rand_ar request that keep `count` tokens."""
        rows = np.flatnonzero(positions.sum(axis=1) == count)
        starts = np.nonzero(positions[rows])[1].reshape(len(rows), count)
        codes, cache = generate_at(self.graphs, self.config, request.only(rows), starts, steps)
        source = self.tokenizer.recover_source(codes, self._grid, starts)
        sizes = (source[:, None] == np.arange(count)[:, None]).sum(axis=2)
        return GeneratedArrays(rows, TokenArrays(codes, source, sizes, self._grid), cache)

    @property
    def _grid(self) -> tuple[int, int]:
        return self.config.grid, self.config.grid
