"""Tokens at given positions in a random order, several at a time: rand_ar, as `mergevq.generation.parallel` has it.

Legend: B images, K tokens of each, n tokens of a pass, T length of what a pass reads, S slots of the cache.
"""

from __future__ import annotations

import numpy as np

from mergevq.export.runtime.generator.request import ArrayRequest
from mergevq.export.runtime.generator.sampling import Choose, chooser
from mergevq.export.runtime.generator.steps import Steps
from mergevq.export.runtime.graphs import Graphs
from mergevq.generation.parallel_schedule import parallel_schedule
from mergevq.generation.settings import CacheUse, row_uniform
from mergevq.generator_config import GeneratorConfig


def generate_at(
    graphs: Graphs, config: GeneratorConfig, request: ArrayRequest, positions: np.ndarray, steps: int
) -> tuple[np.ndarray, CacheUse]:
    """The tokens that begin at given positions.

    Args:
        graphs: of a rand_ar generator.
        config: of the generator.
        request: of rows that all keep K tokens.
        positions: (B, K) int64 raster positions, ascending.
        steps: passes, between 1 and K.

    Returns:
        (B, K) int64 codes in the order of the positions, and what it took.

    Raises:
        UsageError: too few or too many steps.
    """
    keep, parts = positions.shape[1], len(config.split)
    schedule = parallel_schedule(keep, steps)
    noise = row_uniform(request.seeds, keep, parts + 1)
    order = noise[:, :, parts].argsort(axis=1, kind="stable")  # (B, K)
    decoding = _Decoding(graphs, config, request, np.take_along_axis(positions, order, axis=1))
    for number, count in enumerate(schedule):
        uniform = noise[:, decoding.done : decoding.done + count, :parts].reshape(-1, parts)
        scale = request.scale(decoding.done / keep)
        decoding.advance(count, chooser(uniform, request.sampling, scale))
        request.report(number + 1, steps)
    codes = np.empty_like(decoding.tokens)
    np.put_along_axis(codes, order, decoding.tokens, axis=1)
    return codes, decoding.use(steps)


class _Decoding(Steps):
    """What is decoded so far; the order is that of generation."""

    def __init__(self, graphs: Graphs, config: GeneratorConfig, request: ArrayRequest, positions: np.ndarray):
        super().__init__(graphs, config, request.conditions(config.classes))
        self.halves = len(self.context) // len(positions)
        self.questions = request.questions
        self.positions = positions  # (B, K)
        self.tokens = np.zeros_like(positions)
        self.done = 0
        # Tokens and questions that are known and not in the cache: codes, positions, which are questions.
        empty = positions[:, :0]
        self._unread = empty, empty, empty.astype(bool)

    def advance(self, count: int, choose: Choose) -> None:
        """Decodes the next `count` tokens."""
        asked_at = self.positions[:, self.done : self.done + count]  # (B, n)
        asked = np.zeros_like(asked_at), asked_at, np.ones(asked_at.shape, dtype=bool)
        parts = zip(self._unread, asked, strict=True)
        code, position, question = (
            np.tile(np.concatenate(pair, axis=1), (self.halves, 1)) for pair in parts
        )  # (rows, T) each
        found = self.step(code, position, self._mask(code.shape[1], count), question)
        contexts = found["context"][:, -count:]
        chosen = self.choose(contexts.reshape(-1, contexts.shape[2]), choose)
        codes = chosen[: asked_at.size].reshape(asked_at.shape)
        self.tokens[:, self.done : self.done + count] = codes
        # The first question stays read; behind it its token, then the other pairs.
        self.cache.append(found, code.shape[1] - count + 1)
        self._unread = (
            np.repeat(codes, 2, axis=1)[:, 1:],
            np.repeat(asked_at, 2, axis=1)[:, 1:],
            np.tile([True, False], (len(codes), count))[:, 1:],
        )
        self.done += count

    def _mask(self, length: int, asked: int) -> np.ndarray:
        """(rows, T, S + T): each token sees those before it, each question all tokens and what the request says."""
        known = length - asked
        seen = np.tril(np.ones((length, length), dtype=bool))
        if self.questions == "independent":
            seen[known:, known:] = np.eye(asked, dtype=bool)
        mask = np.repeat(self.cache.visible(length), length, axis=1)
        mask[:, :, -length:] = seen
        return mask
