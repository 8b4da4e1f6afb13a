"""From logits to codes as `mergevq.generation.sampling` does it, with NumPy arrays; tests hold the two together.

Legend: R rows, V entries of a vocabulary, P sub-codes of a code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mergevq.generation.settings import Sampling

Choose = Callable[[np.ndarray, int], np.ndarray]
"""From (R, 2^bits) float32 logits and the number of the sub-code to (R,) int64 choices."""


def filtered(logits: np.ndarray, sampling: Sampling) -> np.ndarray:
    """(R, V) logits with minus infinity where temperature, top-k and top-p allow no draw."""
    logits = logits / np.float32(max(sampling.temperature, 1e-5))
    if 0 < sampling.top_k < logits.shape[-1]:
        least = np.partition(logits, -sampling.top_k, axis=-1)[:, -sampling.top_k, None]
        logits = np.where(logits < least, -np.inf, logits)
    if sampling.top_p < 1:
        order = np.argsort(-logits, axis=-1, kind="stable")
        probabilities = softmax(np.take_along_axis(logits, order, axis=-1))
        before = cumulated(probabilities) - probabilities
        removed = np.empty(logits.shape, dtype=bool)
        np.put_along_axis(removed, order, before >= sampling.top_p, axis=-1)
        logits = np.where(removed, -np.inf, logits)
    return logits


def draw(logits: np.ndarray, uniform: np.ndarray, sampling: Sampling) -> np.ndarray:
    """Chooses an entry in each row.

    Args:
        logits: (R, V) float32.
        uniform: (R,) float32 in [0, 1).
        sampling: what may be drawn.

    Returns:
        (R,) int64 in [0, V).
    """
    if sampling.temperature == 0:
        return logits.argmax(axis=-1)
    reached = cumulated(softmax(filtered(logits, sampling)))
    total = reached[:, -1:]
    chosen = (reached <= uniform[:, None] * total).sum(axis=-1)
    last = (reached < total).sum(axis=-1)  # behind it there may be entries of no probability
    return np.minimum(chosen, last)


def chooser(uniform: np.ndarray, sampling: Sampling, guidance: float | None) -> Choose:
    """Chooses sub-codes.

    Args:
        uniform: (R, P), a number for each sub-code.
        sampling: what may be drawn.
        guidance: None where there are R rows of logits. A scale s where there are 2 R, the second half without
            class: u + s (c - u) is drawn from, and both halves get the same code.
    """

    def choose(logits: np.ndarray, part: int) -> np.ndarray:
        if guidance is None:
            return draw(logits, uniform[:, part], sampling)
        given, free = np.split(logits, 2)
        mixed = free + np.float32(guidance) * (given - free)
        return np.tile(draw(mixed, uniform[:, part], sampling), 2)

    return choose


def join_code(parts: Sequence[np.ndarray], split: Sequence[int]) -> np.ndarray:
    """(R,) sub-codes, the lowest bits first, to (R,) int64 codes."""
    joined, offset = np.zeros(len(parts[0]), dtype=np.int64), 0
    for part, bits in zip(parts, split, strict=True):
        joined |= part.astype(np.int64) << offset
        offset += bits
    return joined


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis."""
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def cumulated(probabilities: np.ndarray) -> np.ndarray:
    """Sums up to each entry, added up in float64 as PyTorch does on a CPU."""
    return probabilities.cumsum(axis=-1, dtype=np.float64).astype(np.float32)
