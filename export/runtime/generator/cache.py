"""Keys and values outside the graphs, as `mergevq.generation.cache` keeps them, in NumPy arrays.

A step is given whole buffers, and a mask that hides the slots that no token has taken: a slice of a buffer would have
to be copied at every step. The buffers grow by some slots at a time. Keys were rotated by their own positions in the
graph, so it does not matter which token a slot holds.

Legend: B rows, M heads, S slots, T new tokens, E head width, W window.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

GROWTH = 32
"""Slots that are made room for at a time."""


class SlotCache:
    """The keys and values of every layer.

    Args:
        present: by name, "present.0.key" say, of the prefix: (B, M, p, E).

    Attributes:
        past: the buffers under the names by which a step takes them, (B, M, S, E).
        used: (B,) int64, the slots that are taken in each row, which are the first ones.
    """

    def __init__(self, present: Mapping[str, np.ndarray]):
        layers = {name: each for name, each in present.items() if name.startswith("present.")}
        first = next(iter(layers.values()))
        self.used = np.zeros(len(first), dtype=np.int64)
        self.past = {_past(name): each[:, :, :0] for name, each in layers.items()}
        self.append(layers, first.shape[2])

    @property
    def capacity(self) -> int:
        """Slots that there is memory for, in each row."""
        return next(iter(self.past.values())).shape[2]

    @property
    def bytes(self) -> int:
        """Memory taken."""
        return sum(each.nbytes for each in self.past.values())

    def append(self, present: Mapping[str, np.ndarray], count: int) -> None:
        """Takes in the first `count` of the new tokens, behind those that are there, in rows that all hold as many."""
        start = int(self.used[0])
        self._grow(start + count)
        for name, buffer in self.past.items():
            buffer[:, :, start : start + count] = present[_present(name)][:, :, :count]
        self.used = self.used + count

    def put(self, present: Mapping[str, np.ndarray], slots: np.ndarray) -> None:
        """Takes in one new token a row at (B,) slots of its own."""
        self._grow(int(slots.max()) + 1)
        rows = np.arange(len(slots))
        for name, buffer in self.past.items():
            buffer[rows, :, slots] = present[_present(name)][:, :, 0]
        self.used = np.maximum(self.used, slots + 1)

    def visible(self, new: int) -> np.ndarray:
        """(B, 1, S + T) bool: the slots that are taken, and all `new` tokens."""
        taken = np.arange(self.capacity) < self.used[:, None]
        return np.concatenate([taken, np.ones((len(taken), new), dtype=bool)], axis=1)[:, None]

    def _grow(self, slots: int) -> None:
        """Makes room for so many slots; what is there stays, and what is new is zero."""
        if slots <= self.capacity:
            return
        more = slots + GROWTH - self.capacity
        for name, buffer in self.past.items():
            self.past[name] = np.pad(buffer, ((0, 0), (0, 0), (0, more), (0, 0)))


class WindowedSlots:
    """Which slot each new token of merge_ar takes, in each row.

    A token takes the next slot, unless a duplicate has just left the window: then it takes that one's.

    Args:
        rows: B.
        lead: tokens of the prefix, which stay for ever.
        window: W >= 1, the latest tokens that stay whatever they are.

    Source: MergeVQ (arXiv:2504.00999), Section 4.1, "Position Cache".
    """

    def __init__(self, rows: int, lead: int, window: int):
        self._used = np.full(rows, lead)
        self._slot = np.zeros((rows, window), dtype=np.int64)
        self._leaves = np.zeros((rows, window), dtype=bool)

    def place(self, number: int, duplicate: np.ndarray) -> np.ndarray:
        """The slot of token `number`, counted from 0; called for each in turn.

        Args:
            number: its position in raster order.
            duplicate: (B,) bool, whether an earlier token of the row has its code.

        Returns:
            (B,) int64.
        """
        turn = number % self._slot.shape[1]
        free = self._leaves[:, turn]  # token number - W has left the window, and its code stands elsewhere
        slot = np.where(free, self._slot[:, turn], self._used)
        self._used = self._used + ~free
        self._slot[:, turn] = slot
        self._leaves[:, turn] = duplicate
        return slot


def _past(name: str) -> str:
    return name.replace("present.", "past.", 1)


def _present(name: str) -> str:
    return name.replace("past.", "present.", 1)
