"""How much of the vocabulary a tokenizer uses.

Batches of indices in, one `Usage` out. Counts are exact for any vocabulary: only the codes that occurred
are held. A fraction of codes seen grows with the number of images, so the two are reported together.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mergevq.errors import UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """What a set of images used of a vocabulary of 2^d codes."""

    fraction: float
    """Distinct codes over 2^d."""
    distinct: int
    """Codes that occurred at least once."""
    entropy: float
    """Entropy in bits of the empirical distribution over codes; at most d."""
    perplexity: float
    """2 to the entropy: the number of equally likely codes with the same entropy."""
    images: int
    """Images counted over."""
    tokens: int
    """Tokens counted over."""


class CodebookUsage:
    """Counts of the codes that occurred.

    Args:
        bits: d; indices lie in [0, 2^d).
    """

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self.images = 0
        self._codes = torch.empty(0, dtype=torch.int64)  # sorted, distinct
        self._counts = torch.empty(0, dtype=torch.int64)

    def update(self, indices: torch.Tensor) -> None:
        """Count the codes of a batch.

        Args:
            indices: (B, K) integers.

        Raises:
            UsageError: an index is outside the vocabulary.
        """
        codes, counts = torch.unique(indices.detach().cpu().to(torch.int64), return_counts=True)
        if codes.numel() and (int(codes[0]) < 0 or int(codes[-1]) >= 2**self.bits):
            raise UsageError(
                f"indices run from {int(codes[0])} to {int(codes[-1])}; "
                f"{self.bits} bits hold 0 to {2**self.bits - 1}"
            )
        self.images += indices.shape[0]
        self._add(codes, counts)

    def merge(self, other: CodebookUsage) -> None:
        """Add the counts of another part of the data, such as another rank's.

        Raises:
            UsageError: the two vocabularies differ.
        """
        if other.bits != self.bits:
            raise UsageError(f"usage of {other.bits} bits cannot be added to usage of {self.bits} bits")
        self.images += other.images
        self._add(other._codes, other._counts)

    def compute(self) -> Usage:
        """The summary of everything counted so far.

        Raises:
            UsageError: nothing has been counted.
        """
        tokens = int(self._counts.sum())
        if not tokens:
            raise UsageError("codebook usage was asked for before any tokens were counted")
        share = self._counts.double() / tokens
        entropy = max(0.0, float(-(share * share.log2()).sum()))
        distinct = self._codes.numel()
        return Usage(
            fraction=distinct / 2**self.bits,
            distinct=distinct,
            entropy=entropy,
            perplexity=2**entropy,
            images=self.images,
            tokens=tokens,
        )

    def _add(self, codes: torch.Tensor, counts: torch.Tensor) -> None:
        merged, place = torch.unique(torch.cat([self._codes, codes]), return_inverse=True)
        totals = torch.zeros_like(merged)
        self._counts = totals.index_add_(0, place, torch.cat([self._counts, counts]))
        self._codes = merged
