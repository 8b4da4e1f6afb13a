"""Keys and values of the tokens that may still be seen, and nothing else.

A row's tokens occupy the slots 0, 1, 2, ... without gaps. A new token takes the next slot, unless a
duplicate has just left the window: then it takes that one's, whose keys and values nobody may see any
more. So memory follows the number of distinct tokens plus the window, nothing is ever moved, and what is
valid in a row is a prefix. Which position a slot holds does not matter to attention: keys were
rotated by their own position before they were stored. Slots that no token has taken are zero, not
whatever was in memory: a row with fewer tokens than another meets them with weight 0, and 0 times NaN is NaN.

Legend: B rows, M heads, S slots, E head width, W window.
"""

from __future__ import annotations

import torch

from mergevq.generator_config import HEAD_WIDTH, GeneratorConfig

_STEP = 32


class KVCache:
    """One buffer of keys and values a layer.

    Args:
        config: of the generator.
        rows: B.
        capacity: slots to begin with.
        most: slots that can ever be in use; the buffers never grow beyond.
        device: of the buffers.
        dtype: of the buffers.

    Attributes:
        layers: what `Transformer` takes as caches.
        capacity: slots that there is memory for, in each row.
        rows: (B,) int64, the number of each row.
    """

    def __init__(
        self,
        config: GeneratorConfig,
        rows: int,
        capacity: int,
        most: int,
        device: torch.device,
        dtype: torch.dtype,
    ):
        self.capacity = min(capacity, most)
        self.most = most
        self.visible = 0
        self.slots: torch.Tensor | int = 0
        self.rows = torch.arange(rows, device=device)
        shape = (2, rows, config.heads, self.capacity, HEAD_WIDTH)
        self.layers = [
            _Layer(self, torch.zeros(shape, device=device, dtype=dtype)) for _ in range(config.depth)
        ]

    @property
    def bytes(self) -> int:
        """Memory taken."""
        return sum(layer.buffer.nbytes for layer in self.layers)

    def next(self, slots: torch.Tensor | int, visible: int) -> None:
        """Says where the next tokens go.

        Args:
            slots: (B,) int64, the slot of one new token in each row; or the first slot of consecutive ones, the
                same in every row.
            visible: slots that attention is given, from 0; more than there is memory for makes the buffers grow.
        """
        self.slots, self.visible = slots, visible
        if visible > self.capacity:
            self.capacity = min(visible + _STEP, self.most)
            for layer in self.layers:
                layer.grow(self.capacity)


class _Layer:
    """The keys and values of one layer."""

    def __init__(self, cache: KVCache, buffer: torch.Tensor):
        self.cache = cache
        self.buffer = buffer  # (2, B, M, capacity, E)

    def store(self, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Takes in (B, M, T, E) keys and values, and returns those of the visible slots."""
        slots = self.cache.slots
        if isinstance(slots, int):
            self.buffer[0, :, :, slots : slots + key.shape[2]] = key
            self.buffer[1, :, :, slots : slots + key.shape[2]] = value
        else:
            self.buffer[0][self.cache.rows, :, slots] = key.squeeze(2).to(self.buffer.dtype)
            self.buffer[1][self.cache.rows, :, slots] = value.squeeze(2).to(self.buffer.dtype)
        seen = self.buffer[:, :, :, : self.cache.visible]
        return seen[0], seen[1]

    def grow(self, capacity: int) -> None:
        """Makes room; what is there stays."""
        *lead, before, width = self.buffer.shape
        larger = self.buffer.new_zeros(*lead, capacity, width)
        larger[..., :before, :] = self.buffer
        self.buffer = larger


class WindowedSlots:
    """Which slot each new token of merge_ar takes, in each row.

    Args:
        rows: B.
        lead: tokens of the prefix, which stay for ever.
        window: W >= 1, the latest tokens that stay whatever they are.
        device: of the tokens.

    Attributes:
        used: (B,) int64, the slots taken, which are the valid ones of each row.

    Source: MergeVQ (arXiv:2504.00999), Section 4.1, "Position Cache".
    """

    def __init__(self, rows: int, lead: int, window: int, device: torch.device):
        self.window = window
        self.used = torch.full((rows,), lead, device=device)
        self._slot = torch.zeros(rows, window, dtype=torch.int64, device=device)
        self._leaves = torch.zeros(rows, window, dtype=torch.bool, device=device)

    def place(self, number: int, duplicate: torch.Tensor) -> torch.Tensor:
        """The slot of token `number`, counted from 0; called for each in turn.

        Args:
            number: its position in raster order.
            duplicate: (B,) bool, whether an earlier token of the row has its code.

        Returns:
            (B,) int64.
        """
        turn = number % self.window
        free = self._leaves[:, turn]  # token number - W has left the window, and its code stands elsewhere
        slot = torch.where(free, self._slot[:, turn], self.used)
        self.used = self.used + (~free).long()
        self._slot[:, turn] = slot
        self._leaves[:, turn] = duplicate
        return slot
