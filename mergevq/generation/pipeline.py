"""From classes to images: a generator and the tokenizer whose codes it speaks.

Legend: B images, L positions, K kept tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mergevq.errors import UsageError
from mergevq.generation.guidance import GuidanceSchedule
from mergevq.generation.layout_bank import draw_layouts
from mergevq.generation.parallel import generate_at
from mergevq.generation.request import CacheUse, Request
from mergevq.generation.sequential import generate_raster
from mergevq.generation.settings import (
    Questions,
    Sampling,
    check_questions,
    check_steps,
    kept_counts,
    known_classes,
    row_seeds,
    schedule_of,
)
from mergevq.models.generators.autoregressive import Generator
from mergevq.models.tokenizer.tokenizer import Tokenizer
from mergevq.tokens import Tokens


@dataclass(frozen=True)
class Generated:
    """Tokens of some of the images that were asked for.

    Attributes:
        rows: (b,) int64, which of the B images these are.
        tokens: of these images; raster and merge_ar give one token a position.
        cache: what it took to make them.
    """

    rows: torch.Tensor
    tokens: Tokens
    cache: CacheUse


class ImageGenerator(nn.Module):
    """A generator with its tokenizer: classes in, images out.

    Attributes:
        model: the generator.
        tokenizer: turns its tokens into images.
        compiled: whether `compile` was called.
    """

    def __init__(self, model: Generator, tokenizer: Tokenizer):
        super().__init__()
        config, theirs = model.config, tokenizer.config
        if (config.bits, config.grid) != (theirs.quantizer.bits, theirs.grid):
            raise UsageError(
                f"generator and tokenizer do not belong together: codes of {config.bits} bits on a grid of "
                f"{config.grid} a side against {theirs.quantizer.bits} bits and {theirs.grid}"
            )
        self.model = model
        self.tokenizer = tokenizer
        self.compiled = False

    def compile(self, **options: Any) -> None:
        """Has torch.compile make the passes of raster and merge_ar, which then have few different shapes.

        Args:
            options: of torch.compile, such as `mode`.

        Raises:
            UsageError: the kind is rand_ar, whose passes all differ in shape.
        """
        if self.kind == "rand_ar":
            raise UsageError("rand_ar cannot be compiled: each of its passes has another shape")
        self.model.transformer.compile(dynamic=False, **options)
        self.compiled = True

    @property
    def kind(self) -> str:
        """raster, merge_ar or rand_ar."""
        return self.model.config.kind

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device

    @torch.inference_mode()
    def generate(
        self,
        labels: torch.Tensor | Sequence[int],
        *,
        seed: int | Sequence[int] = 0,
        guidance: float = 1.0,
        guidance_schedule: GuidanceSchedule | None = None,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        steps: int | None = None,
        questions: Questions = "independent",
        keep: int | Sequence[int] | torch.Tensor | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> torch.Tensor:
        """Images of classes.

        Args:
            labels: (B,) classes, in [0, classes).
            seed: image i has seed + i; or one seed an image. The seed decides the image, whatever else is in the batch.
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
            (B, 3, H, W) in [-1, 1].

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
        images: torch.Tensor | None = None
        for part in self.generate_tokens(request, steps):
            painted = self.tokenizer.decode(part.tokens)
            if images is None:
                images = painted.new_empty(len(request.labels), *painted.shape[1:])
            images[part.rows] = painted
        assert images is not None
        return images

    def request(
        self,
        labels: torch.Tensor | Sequence[int],
        *,
        seed: int | Sequence[int] = 0,
        guidance: float = 1.0,
        guidance_schedule: GuidanceSchedule | None = None,
        sampling: Sampling | None = None,
        questions: Questions = "independent",
        keep: int | Sequence[int] | torch.Tensor | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Request:
        """A request that this generator can meet; the arguments are those of `generate`.

        Raises:
            UsageError: a class, a count or a setting that does not exist.
        """
        config = self.model.config
        classes = known_classes(labels, config)
        check_questions(questions, config)
        return Request(
            labels=torch.tensor(classes, device=self.device),
            keep=torch.tensor(kept_counts(keep, len(classes), config), device=self.device),
            seeds=row_seeds(seed, len(classes)),
            sampling=sampling or Sampling(),
            guidance=guidance,
            guidance_schedule=schedule_of(config.kind, guidance_schedule),
            questions=questions,
            static_shapes=self.compiled or self.device.type != "cpu",
            progress=progress,
        )

    @torch.inference_mode()
    def generate_tokens(self, request: Request, steps: int | None = None) -> Iterator[Generated]:
        """The tokens of a request, in one part, or in one for each kept count that rand_ar draws.

        Args:
            request: as `request` makes it.
            steps: passes of rand_ar, as in `generate`.

        Raises:
            UsageError: impossible steps, or a count of which rand_ar has no layout.
        """
        self.check_steps(steps)
        if self.kind != "rand_ar":
            yield self._in_raster_order(request)
            return
        positions = draw_layouts(self.model, request.labels, request.keep, request.seeds)
        for count in sorted(set(positions.sum(dim=1).tolist())):
            yield self._at_positions(request, positions, count, steps)

    def check_steps(self, steps: int | None) -> None:
        """Raises UsageError where steps are given to a kind that takes one a token."""
        check_steps(steps, self.model.config)

    def _in_raster_order(self, request: Request) -> Generated:
        codes, cache = generate_raster(self.model, request)
        each = torch.arange(codes.shape[1], device=codes.device).expand_as(codes)
        tokens = Tokens(codes, each, torch.ones_like(codes), self._grid)
        return Generated(torch.arange(len(codes), device=codes.device), tokens, cache)

    def _at_positions(
        self, request: Request, positions: torch.Tensor, count: int, steps: int | None
    ) -> Generated:
        """Those rows of a rand_ar request that keep `count` tokens."""
        rows = [row for row, kept in enumerate(positions.sum(dim=1).tolist()) if kept == count]
        chosen = torch.tensor(rows, device=self.device)
        # As numbers with a fraction: an NPU sorts integers on its host processor.
        starts = positions[chosen].float().argsort(dim=1, descending=True, stable=True)[:, :count]
        part = request.only(rows, count)
        codes, cache = generate_at(self.model, part, starts, count if steps is None else steps)
        source = self.tokenizer.recover_source(codes, self._grid, starts)
        sizes = nn.functional.one_hot(source, count).sum(dim=1)
        return Generated(chosen, Tokens(codes, source, sizes, self._grid), cache)

    @property
    def _grid(self) -> tuple[int, int]:
        return self.model.config.grid, self.model.config.grid
