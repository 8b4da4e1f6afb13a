"""The graphs of a generator and their cache: what stands before the tokens, new tokens, and the choice of a code.

Legend: B rows, T new tokens, D width, N outputs.
"""

from __future__ import annotations

import numpy as np

from mergevq.export.runtime.generator.cache import SlotCache
from mergevq.export.runtime.generator.sampling import Choose, join_code
from mergevq.export.runtime.graphs import Graphs
from mergevq.generation.settings import CacheUse
from mergevq.generator_config import GeneratorConfig


class Steps:
    """One generation.

    Args:
        graphs: of a generator.
        config: of the generator.
        conditions: (B,) label and keep by name.

    Attributes:
        context: (B, D), the output from which the first token is drawn.
        cache: keys and values, those of the prefix to begin with.
    """

    def __init__(self, graphs: Graphs, config: GeneratorConfig, conditions: dict[str, np.ndarray]):
        self.graphs = graphs
        self.config = config
        found = graphs.run("prefill", conditions)
        self.context = found["context"]
        self.cache = SlotCache(found)

    def step(
        self, code: np.ndarray, position: np.ndarray, mask: np.ndarray, question: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Reads new tokens.

        Args:
            code: (B, T) int64.
            position: (B, T) int64.
            mask: (B, T, S + T) bool, what each of them sees of the cache's S slots and of them all.
            question: (B, T) bool, where the position is asked about; of rand_ar.

        Returns:
            context (B, T, D), and the keys and values of the new tokens.
        """
        inputs = {"code": code, "position": position, "mask": mask, **self.cache.past}
        if question is not None:
            inputs["question"] = question
        return self.graphs.run("step", inputs)

    def use(self, passes: int) -> CacheUse:
        """What the generation took so far."""
        return CacheUse(self.cache.capacity, self.cache.bytes, passes)

    def choose(self, context: np.ndarray, choose: Choose) -> np.ndarray:
        """(N, D) outputs to (N,) int64 codes, sub-code by sub-code."""
        parts: list[np.ndarray] = []
        for part in range(len(self.config.split)):
            inputs = {"context": context}
            if parts:
                inputs["known"] = np.stack(parts, axis=1)
            parts.append(choose(self.graphs.run("head", inputs, part=part)["logits"], part))
        return join_code(parts, self.config.split)
