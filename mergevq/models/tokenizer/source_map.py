"""The most likely source map: from how well each token fits each position to one token a position.

Tokens stand in the order of the first position that each covers. A source map is therefore a sequence
that starts at token 0, in which every token appears, and in which a token that has not appeared yet is
always the next one. Choosing the best token at each position alone ignores that, and pays for it: among
the maps that can exist, the most likely one is found exactly by dynamic programming.

Legend: B batch, L positions, K kept tokens.
"""

from __future__ import annotations

import torch


@torch.no_grad()
def most_likely_source(logits: torch.Tensor) -> torch.Tensor:
    """The valid source map of the greatest joint probability.

    The state of the search is the newest token that has appeared. A position either takes the best of the
    tokens that have appeared, or is the first one of the next token. L steps of a few operations on (B, K).

    Args:
        logits: (B, L, K) with L >= K, of a softmax over the tokens at each position; minus infinity is
            allowed for a token before the position of its own number.

    Returns:
        (B, L) int64 in [0, K). Every token covers at least one position.

    Source: MergeVQ (arXiv:2504.00999), Eq. 8.
    Differs: the maximum is taken over maps that can exist, not at each position alone.
    """
    scores = logits.float().log_softmax(dim=-1)  # (B, L, K)
    # For each state m, the best of the tokens 0..m at each position.
    best, choice = scores.cummax(dim=-1)  # (B, L, K)
    total = torch.full_like(scores[:, 0], float("-inf"))
    total[:, 0] = scores[:, 0, 0]
    opened = []  # at each later position, whether the best way to each state opens its token there
    for position in range(1, scores.shape[1]):
        stay = total + best[:, position]
        advance = torch.cat([stay.new_full((len(stay), 1), float("-inf")), total[:, :-1]], dim=1)
        advance = advance + scores[:, position]
        opened.append(advance > stay)
        total = torch.maximum(advance, stay)
    state = choice.new_full((len(scores), 1), scores.shape[2] - 1)
    tokens = []
    for position in range(scores.shape[1] - 1, 0, -1):
        opens = opened[position - 1].gather(1, state)
        tokens.append(torch.where(opens, state, choice[:, position].gather(1, state)))
        state = state - opens.long()
    tokens.append(torch.zeros_like(state))
    return torch.cat(tokens[::-1], dim=1)


@torch.no_grad()
def source_with_starts(logits: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
    """The most likely source map whose tokens begin at known positions.

    What remains to be chosen at each position is independent of the others: one of the tokens that have
    begun, and at the beginning of a token that token.

    Args:
        logits: (B, L, K), of a softmax over the tokens at each position.
        starts: (B, K) int64, ascending from 0: the first position that each token covers.

    Returns:
        (B, L) int64 in [0, K).
    """
    positions = torch.arange(logits.shape[1], device=logits.device).unsqueeze(-1)  # (L, 1)
    begins = starts.unsqueeze(1) == positions  # (B, L, K)
    begun = starts.unsqueeze(1) <= positions
    likeliest = logits.masked_fill(~begun, float("-inf")).argmax(dim=-1)
    return torch.where(begins.any(dim=-1), begins.int().argmax(dim=-1), likeliest)
