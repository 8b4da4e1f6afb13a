"""One token after another in raster order: raster and merge_ar.

Legend: B rows, L positions, S slots.
"""

from __future__ import annotations

import math

import torch

from mergevq.backends import for_few_rows
from mergevq.generation.cache import KVCache, WindowedSlots
from mergevq.generation.guidance import guidance_at
from mergevq.generation.request import CacheUse, Request
from mergevq.generation.sampling import chooser, row_noise
from mergevq.models.generators.autoregressive import Generator

# How often a device other than the CPU is asked how many slots are in use; in between, an upper bound does.
_ASK_EVERY = 32

# With static shapes attention is given a multiple of so many slots, and so few different shapes.
_BUCKET = 128


@torch.inference_mode()
def generate_raster(model: Generator, request: Request) -> tuple[torch.Tensor, CacheUse]:
    """All L tokens of each row.

    Args:
        model: of kind raster or merge_ar.
        request: on the model's device.

    Returns:
        (B, L) int64 codes, and what it took.
    """
    config = model.config
    labels, keep = request.rows(config.classes)
    if not request.static_shapes:  # with them it may be compiled, and a copy would not be
        model = for_few_rows(model, len(labels))
    steps = _Steps(model, len(labels), int(request.keep.max()), request.static_shapes)
    noise = row_noise(request.seeds, config.length, len(config.split)).to(model.device)
    tokens = torch.empty(len(request.labels), config.length, dtype=torch.int64, device=model.device)
    hidden = steps.begin(model.prefix(labels, keep))
    for number in range(config.length):
        scale = guidance_at(request.guidance, request.guidance_schedule, number / config.length)
        choose = chooser(noise[:, number], request.sampling, scale)
        chosen = model.head.sample(hidden, model.codes, choose)  # of all rows; both halves are alike
        tokens[:, number] = chosen[: len(tokens)]
        if number + 1 < config.length:
            duplicate = (tokens[:, :number] == tokens[:, number : number + 1]).any(dim=1)
            hidden = steps.advance(number, model.codes(chosen), duplicate)
        request.report(number + 1, config.length)
    return tokens, CacheUse(steps.cache.capacity, steps.cache.bytes, config.length)


class _Steps:
    """The Transformer fed with one token at a time."""

    def __init__(self, model: Generator, rows: int, distinct: int, static_shapes: bool):
        config = model.config
        self.model = model
        self.static_shapes = static_shapes
        self.lead = 2 if config.kind == "merge_ar" else 1
        self.slots = None
        capacity = most = self.lead + config.length - 1
        if config.kind == "merge_ar":
            self.slots = WindowedSlots(rows, self.lead, config.window, model.device)
            capacity = self.lead + distinct + config.window
        self.cache = KVCache(config, rows, capacity, most, model.device, model.dtype)
        self.rows = rows
        self._bound = self.lead

    def begin(self, prefix: torch.Tensor) -> torch.Tensor:
        """Takes in the (B, p, D) prefix; the output at its end, (B, D)."""
        self.cache.next(0, self.lead)
        causal = torch.ones(1, self.lead, self.lead, dtype=torch.bool, device=prefix.device).tril()
        positions = torch.full((1, self.lead), self.model.config.length, device=prefix.device)
        rotation = self.model.rotation(positions)
        return self.model.transformer(prefix, rotation, causal, self.cache.layers)[:, -1]

    def advance(self, number: int, x: torch.Tensor, duplicate: torch.Tensor) -> torch.Tensor:
        """Takes in token `number`, (B, D), and returns the output from which the next one is drawn, (B, D)."""
        valid = self._make_room(number, duplicate)
        rotation = self.model.rotation(torch.full((1, 1), number, device=x.device))
        return self.model.transformer(x.unsqueeze(1), rotation, valid, self.cache.layers)[:, -1]

    def _make_room(self, number: int, duplicate: torch.Tensor) -> torch.Tensor | None:
        """Chooses the slots of a token; which slots are valid, (1 or B, 1, S), or None where all are."""
        if self.slots is None:
            return self._next_slot(number)
        place = self.slots.place(number, duplicate.repeat(self.rows // len(duplicate)))
        used = self.slots.used
        on_host = used.device.type == "cpu"
        self._bound += 1
        if on_host or number % _ASK_EVERY == 0:
            self._bound = int(used.max())
        visible = self._visible(self._bound)
        self.cache.next(place, visible)
        if on_host and int(used.min()) == visible:
            return None
        return (torch.arange(visible, device=used.device) < used.unsqueeze(1)).unsqueeze(1)

    def _next_slot(self, number: int) -> torch.Tensor | None:
        """The same where every token has a slot of its own."""
        slot = self.lead + number
        if not self.static_shapes:
            self.cache.next(slot, slot + 1)
            return None
        visible = self._visible(slot + 1)
        self.cache.next(torch.full((self.rows,), slot, device=self.model.device), visible)
        return (torch.arange(visible, device=self.model.device) <= slot).view(1, 1, -1)

    def _visible(self, used: int) -> int:
        """The slots that attention is given, at least as many as are used."""
        if not self.static_shapes:
            return used
        most = self.cache.capacity if used <= self.cache.capacity else self.cache.most
        return min(math.ceil(used / _BUCKET) * _BUCKET, most)
