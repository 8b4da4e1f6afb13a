"""Tokens at given positions in a random order, several at a time: rand_ar.

A pass reads the tokens of the pass before, each after its question, and asks the next questions. A
question sees every token that is known and itself, not the other questions asked with it: what it was trained to
answer. On request it sees those before it too, as in RandAR's code. Those of the
pass before are read again behind the tokens that came with them, as in training; only the first one
had nothing between, and stays in the cache. One token a pass is therefore exactly sequential decoding.

Legend: B rows, K tokens of each row, n tokens of a pass, T length of what a pass reads.
"""

from __future__ import annotations

import math

import torch

from mergevq.backends import for_few_rows
from mergevq.generation.cache import KVCache
from mergevq.generation.guidance import guidance_at
from mergevq.generation.parallel_schedule import parallel_schedule
from mergevq.generation.request import CacheUse, Request
from mergevq.generation.sampling import chooser, row_noise
from mergevq.models.generators.autoregressive import Generator
from mergevq.models.generators.subcodes import Choose


@torch.inference_mode()
def generate_at(
    model: Generator, request: Request, positions: torch.Tensor, steps: int
) -> tuple[torch.Tensor, CacheUse]:
    """The tokens that begin at given positions.

    Args:
        model: of kind rand_ar.
        request: on the model's device.
        positions: (B, K) int64 raster positions, ascending.
        steps: passes, between 1 and K.

    Returns:
        (B, K) int64 codes in the order of the positions, and what it took.

    Raises:
        UsageError: too few or too many steps.
    """
    schedule = parallel_schedule(positions.shape[1], steps)
    keep, parts = positions.shape[1], len(model.config.split)
    noise = row_noise(request.seeds, keep, parts + 1).to(model.device)
    order = noise[:, :, parts].argsort(dim=1, stable=True)  # (B, K)
    rows = len(request.rows(model.config.classes)[0])
    tokens = math.ceil(3 * keep / steps)  # of a usual pass, which reads pairs and asks
    model = for_few_rows(model, rows * tokens)
    decoding = _Decoding(model, request, positions.gather(1, order))
    for number, count in enumerate(schedule):
        scale = guidance_at(request.guidance, request.guidance_schedule, decoding.done / keep)
        uniform = noise[:, decoding.done : decoding.done + count, :parts].flatten(0, 1)
        decoding.advance(count, chooser(uniform, request.sampling, scale))
        request.report(number + 1, steps)
    codes = torch.empty_like(decoding.tokens).scatter(1, order, decoding.tokens)
    return codes, CacheUse(decoding.cache.capacity, decoding.cache.bytes, steps)


class _Decoding:
    """What is decoded so far; the order is that of generation."""

    def __init__(self, model: Generator, request: Request, positions: torch.Tensor):
        self.model = model
        self.questions = request.questions
        self.positions = positions  # (B, K)
        self.tokens = torch.zeros_like(positions)
        self.done = 0
        labels, keep = request.rows(model.config.classes)
        self.rows = len(labels)
        self._unread = model.prefix(labels, keep)  # (rows, T, D)
        self._unread_at = positions.new_full((len(positions), 1), model.config.length)
        self._read = 0
        slots = 2 * positions.shape[1]  # the class, and all pairs but the last token
        self.cache = KVCache(model.config, self.rows, slots, slots, model.device, model.dtype)

    def advance(self, count: int, choose: Choose) -> None:
        """Decodes the next `count` tokens."""
        asked_at = self.positions[:, self.done : self.done + count]  # (B, n)
        questions = self._repeated(self.model.questions(asked_at))
        x = torch.cat([self._unread, questions], dim=1)  # (rows, T, D)
        at = torch.cat([self._unread_at, asked_at], dim=1)
        hidden = self._transform(x, self._repeated(at), count)
        contexts = hidden[:, -count:].flatten(0, 1)
        chosen = self.model.head.sample(contexts, self.model.codes, choose)
        codes = chosen[: asked_at.numel()].view_as(asked_at)
        self.tokens[:, self.done : self.done + count] = codes
        self._read += self._unread.shape[1] + 1
        # The first question stays read; behind it its token, then the other pairs.
        pairs = torch.stack([questions, self._repeated(self.model.codes(codes))], dim=2).flatten(1, 2)
        self._unread = pairs[:, 1:]
        self._unread_at = asked_at.repeat_interleave(2, dim=1)[:, 1:]
        self.done += count

    def _transform(self, x: torch.Tensor, at: torch.Tensor, asked: int) -> torch.Tensor:
        """Reads and asks: each token sees those before it, each question all tokens and what the request says."""
        length = x.shape[1]
        self.cache.next(self._read, self._read + length)
        known = length - asked
        seen = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
        if self.questions == "independent":
            seen[known:, known:] = torch.eye(asked, dtype=torch.bool, device=x.device)
        mask = torch.cat([seen.new_ones(length, self._read), seen], dim=1).unsqueeze(0)  # (1, T, S)
        return self.model.transformer(x, self.model.rotation(at), mask, self.cache.layers)

    def _repeated(self, x: torch.Tensor) -> torch.Tensor:
        """The same for the second half of the rows, where there is guidance."""
        return x if len(x) == self.rows else x.repeat(self.rows // len(x), *[1] * (x.dim() - 1))
