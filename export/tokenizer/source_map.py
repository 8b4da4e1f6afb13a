"""From the logits of source recovery to a source map, where there is no PyTorch.

The recovery graph ends at the logits. What follows is a dynamic programme of L short steps that depend on one
another: as a graph it would be L copies of them, or a loop, which TensorRT does not take. In NumPy it costs
what it costs in PyTorch. The semantics are those of `mergevq.models.tokenizer.source_map`; a test holds them together.

Legend: B batch, L positions, K kept tokens.
"""

from __future__ import annotations

import numpy as np


def most_likely_source(logits: np.ndarray) -> np.ndarray:
    """The valid source map of the greatest joint probability.

    Args:
        logits: (B, L, K) float32 with L >= K; minus infinity is allowed for a token before the position of its
            own number.

    Returns:
        (B, L) int64 in [0, K). Every token covers at least one position.

    Source: MergeVQ (arXiv:2504.00999), Eq. 8, over the maps that can exist.
    """
    scores = _log_softmax(logits)
    best = np.maximum.accumulate(scores, axis=-1)  # (B, L, K), of the tokens 0..m for each m
    choice = _last_record(scores, best)
    batch, length, keep = scores.shape
    total = np.full((batch, keep), -np.inf, dtype=scores.dtype)
    total[:, 0] = scores[:, 0, 0]
    opened = np.zeros((length, batch, keep), dtype=bool)
    for position in range(1, length):
        stay = total + best[:, position]
        advance = np.full_like(total, -np.inf)
        advance[:, 1:] = total[:, :-1]
        advance += scores[:, position]
        opened[position] = advance > stay
        total = np.maximum(advance, stay)
    return _traced_back(opened, choice)


def source_with_starts(logits: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The most likely source map whose tokens begin at known positions.

    Args:
        logits: (B, L, K).
        starts: (B, K) int64, ascending from 0: the first position that each token covers.

    Returns:
        (B, L) int64 in [0, K).
    """
    positions = np.arange(logits.shape[1])[:, None]  # (L, 1)
    begins = starts[:, None] == positions  # (B, L, K)
    likeliest = np.where(starts[:, None] <= positions, logits, -np.inf).argmax(axis=-1)
    return np.where(begins.any(axis=-1), begins.argmax(axis=-1), likeliest).astype(np.int64)


def _traced_back(opened: np.ndarray, choice: np.ndarray) -> np.ndarray:
    """(B, L) tokens from the (L, B, K) marks of where the best way to each state opens its token."""
    _, batch, keep = opened.shape
    rows = np.arange(batch)
    state = np.full(batch, keep - 1)
    source = np.zeros(choice.shape[:2], dtype=np.int64)
    for position in range(len(opened) - 1, 0, -1):
        opens = opened[position, rows, state]
        source[:, position] = np.where(opens, state, choice[rows, position, state])
        state = state - opens
    return source


def _last_record(scores: np.ndarray, best: np.ndarray) -> np.ndarray:
    """The token that each running maximum belongs to, the last one where several are equal."""
    tokens = np.where(scores == best, np.arange(scores.shape[-1]), 0)
    return np.maximum.accumulate(tokens, axis=-1)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    normalised: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return normalised
