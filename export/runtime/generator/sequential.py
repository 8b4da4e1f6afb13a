"""One token after another in raster order: raster and merge_ar.

Legend: B images, L positions.
"""

from __future__ import annotations

import numpy as np

from mergevq.export.runtime.generator.cache import WindowedSlots
from mergevq.export.runtime.generator.request import ArrayRequest
from mergevq.export.runtime.generator.sampling import chooser
from mergevq.export.runtime.generator.steps import Steps
from mergevq.export.runtime.graphs import Graphs
from mergevq.generation.settings import CacheUse, row_uniform
from mergevq.generator_config import GeneratorConfig


def generate_raster(
    graphs: Graphs, config: GeneratorConfig, request: ArrayRequest
) -> tuple[np.ndarray, CacheUse]:
    """(B, L) int64 codes of all positions, and what it took."""
    steps = _RasterSteps(graphs, config, request.conditions(config.classes))
    noise = row_uniform(request.seeds, config.length, len(config.split))
    tokens = np.empty((len(request.labels), config.length), dtype=np.int64)
    context = steps.context
    for number in range(config.length):
        scale = request.scale(number / config.length)
        chosen = steps.choose(context, chooser(noise[:, number], request.sampling, scale))
        tokens[:, number] = chosen[: len(tokens)]  # with guidance the other half is alike
        if number + 1 < config.length:
            duplicate = (tokens[:, :number] == tokens[:, number, None]).any(axis=1)
            context = steps.advance(number, chosen, duplicate)
        request.report(number + 1, config.length)
    return tokens, steps.use(config.length)


class _RasterSteps(Steps):
    """One new token at a time."""

    def __init__(self, graphs: Graphs, config: GeneratorConfig, conditions: dict[str, np.ndarray]):
        super().__init__(graphs, config, conditions)
        rows, lead = len(self.context), int(self.cache.used[0])
        self._slots = WindowedSlots(rows, lead, config.window) if config.kind == "merge_ar" else None

    def advance(self, number: int, codes: np.ndarray, duplicate: np.ndarray) -> np.ndarray:
        """Takes in token `number`, (B,), and returns the output from which the next one is drawn, (B, D)."""
        position = np.full((len(codes), 1), number)
        if self._slots is None:
            found = self.step(codes[:, None], position, self.cache.visible(1))
            self.cache.append(found, 1)
            return found["context"][:, 0]
        # The token sees what it will see of the cache once it is in: not the duplicate whose slot it takes.
        place = self._slots.place(number, np.tile(duplicate, len(codes) // len(duplicate)))
        mask = self.cache.visible(1)
        inside = place < self.cache.capacity
        mask[np.flatnonzero(inside), 0, place[inside]] = False
        found = self.step(codes[:, None], position, mask)
        self.cache.put(found, place)
        return found["context"][:, 0]
