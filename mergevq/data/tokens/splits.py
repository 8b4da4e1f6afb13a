"""Token shards in two parts, training and validation; no picture has views in both."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mergevq.data.tokens.meta import TokenMeta
from mergevq.data.tokens.shards import TokenShards
from mergevq.tokens import TokenBatch


class TokenRows:
    """Some of the records of token shards, numbered anew.

    Args:
        shards: all of them.
        rows: (n,) int64, the numbers of these there.
    """

    def __init__(self, shards: TokenShards, rows: np.ndarray) -> None:
        self.shards = shards
        self.rows = rows

    @property
    def meta(self) -> TokenMeta:
        """What the records are."""
        return self.shards.meta

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, rows: np.ndarray) -> TokenBatch:
        """Records by their new numbers."""
        return self.shards.batch(self.rows[rows])

    def spaced(self, most: int, batch_size: int) -> Iterator[TokenBatch]:
        """Batches of at most so many records, evenly spaced over all, which may be sorted by class."""
        count = min(most, len(self))
        chosen = np.arange(count) * len(self) // count
        for first in range(0, count, batch_size):
            yield self.batch(chosen[first : first + batch_size])


def all_rows(shards: TokenShards) -> TokenRows:
    """Every record."""
    return TokenRows(shards, np.arange(len(shards)))


def hold_out(shards: TokenShards, share: float) -> tuple[TokenRows, TokenRows]:
    """Training and validation parts; at least one picture in each, a single picture in both.

    Args:
        shards: the records, all views of a picture one after another.
        share: of the pictures, to validate on; evenly spaced, as they may be sorted by class.
    """
    pictures = np.arange(len(shards)) // shards.meta.views
    count = int(pictures[-1]) + 1
    if count == 1:
        return all_rows(shards), all_rows(shards)
    wanted = min(max(round(share * count), 1), count - 1)
    held = (pictures + 1) * wanted // count > pictures * wanted // count
    return TokenRows(shards, np.flatnonzero(~held)), TokenRows(shards, np.flatnonzero(held))
