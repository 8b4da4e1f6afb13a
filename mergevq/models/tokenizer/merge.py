"""How many tokens each block merges, and the record of what became of every position.

Legend: B batch, L positions, T tokens at present, K kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mergevq.config import Schedule
from mergevq.errors import UsageError, unknown_name

if TYPE_CHECKING:  # the plans are plain numbers, which graphs too are told, where there is no PyTorch
    import torch

_WEIGHTS = {
    "square": lambda remaining: remaining**2,
    "linear": lambda remaining: remaining,
    "constant": lambda remaining: 1,
}


def merge_schedule(length: int, keep: int, blocks: int, kind: Schedule = "square") -> list[int]:
    """How many tokens each block merges, so that `length` tokens become exactly `keep`.

    The numbers fall with the depth in proportion to (N - l + 1)^2, to N - l + 1, or not at all, rounded by
    largest remainders. No block merges more than half of its tokens; what that takes from one block
    goes to the others.

    Args:
        length: L >= 1.
        keep: K, at least ceil(L / 2^blocks) and at most L.
        blocks: N, the number of blocks.
        kind: "square", "linear" or "constant".

    Returns:
        N integers that sum to L - K.

    Raises:
        UsageError: K cannot be reached; the nearest count that can is named.

    Source: MergeVQ (arXiv:2504.00999), Appendix A.1, "square decreasing" and "linearly decreasing".
    """
    if kind not in _WEIGHTS:
        raise UsageError(unknown_name("merge schedule", kind, _WEIGHTS))
    least = fewest(length, blocks)
    if not least <= keep <= length:
        raise UsageError(
            f"cannot keep {keep} of {length} tokens with {blocks} merging blocks: "
            f"the nearest count that can be reached is {min(max(keep, least), length)}"
        )
    weights = [_WEIGHTS[kind](blocks - block) for block in range(blocks)]
    plan = _apportion(length - keep, weights)
    present = length
    for block in range(blocks):
        after = blocks - block - 1
        # At least so many that halving in every later block still reaches K; at most half.
        floor = present - keep * 2**after
        merges = min(max(plan[block], floor), present // 2, present - keep)
        if merges != plan[block]:
            plan[block] = merges
            plan[block + 1 :] = _apportion(present - merges - keep, weights[block + 1 :])
        present -= merges
    return plan


def fewest(length: int, blocks: int) -> int:
    """The smallest count that `blocks` halvings of `length` tokens reach: ceil(length / 2^blocks)."""
    return -(-length // 2**blocks)


def scaled_keep(keep: int, length: int, actual: int) -> int:
    """The count that keeps the same fraction of `actual` positions as `keep` of `length`, at least 1."""
    return max(round(keep * actual / length), 1)


def _apportion(total: int, weights: list[int]) -> list[int]:
    """`total` split in proportion to `weights`: floors, then one each to the largest remainders."""
    if not weights:
        return []
    whole = sum(weights)
    shares = [total * weight // whole for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda i: (-(total * weights[i] % whole), i))
    for i in by_remainder[: total - sum(shares)]:
        shares[i] += 1
    return shares


def follow(source: torch.Tensor | None, assign: torch.Tensor) -> torch.Tensor:
    """The source map after one more merge: each position moves on to its token's new slot.

    Args:
        source: (B, L) int64 slots before the merge; None where nothing was merged yet.
        assign: (B, T) int64, the merge.

    Returns:
        (B, L) int64 slots after it.

    Source: MergeVQ (arXiv:2504.00999), Eq. 7: S(l) from S(l-1), with S(0) the identity.
    """
    return assign if source is None else assign.gather(1, source)
