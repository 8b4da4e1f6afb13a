"""One step of a generator with a cache of so many tokens: PyTorch's and that of the graphs.

A step reads one token a row, stores its keys and values, and draws the next code, sub-code by sub-code. It always takes
the same slot, so that every call costs the same; what is in the others, zeros, changes no cost.

Legend: R rows, P cached tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from mergevq.bench.subjects.runtimes import Opened, Where, within
from mergevq.export.runtime.generator import sampling as array_sampling
from mergevq.export.runtime.generator.generator import ArrayGenerator
from mergevq.export.runtime.generator.steps import Steps
from mergevq.generation import sampling
from mergevq.generation.cache import KVCache
from mergevq.generation.settings import Sampling, row_uniform
from mergevq.models.generators.autoregressive import Generator


def step_call(opened: Opened, batch: int, past: int, where: Where) -> Callable[[], Any]:
    """What is timed: (R,) codes of the next token.

    Args:
        opened: a generator of kind raster or merge_ar.
        batch: R.
        past: P, more than the prefix, which is a part of it.
        where: the device.
    """
    codes = np.arange(batch)
    call: Callable[[], Any]
    if opened.folder is None:
        generator = opened.model
        # As in generation itself: what is compiled stays as it is.
        model = generator.model if generator.compiled else where.device.for_few_rows(generator.model, batch)
        call = _in_pytorch(model, torch.from_numpy(codes).to(where.device.name), past)
    else:
        call = _in_graphs(opened.model, codes, past)
    return within(opened, call, where.device)


def _in_pytorch(model: Generator, codes: torch.Tensor, past: int) -> Callable[[], torch.Tensor]:
    rows, config = len(codes), model.config
    cache = KVCache(config, rows, past + 1, past + 1, model.device, model.dtype)
    uniform = torch.from_numpy(_uniform(rows, len(config.split))).to(model.device)

    def call() -> torch.Tensor:
        cache.next(past, past + 1)
        rotation = model.rotation(torch.full((1, 1), _position(past, config.length), device=model.device))
        hidden = model.transformer(model.codes(codes).unsqueeze(1), rotation, None, cache.layers)[:, -1]
        return model.head.sample(hidden, model.codes, sampling.chooser(uniform, Sampling(), None))

    return call


def _in_graphs(model: ArrayGenerator, codes: np.ndarray, past: int) -> Callable[[], np.ndarray]:
    rows, config = len(codes), model.config
    conditions = {"label": np.zeros(rows, dtype=np.int64), "keep": np.full(rows, config.counts[0])}
    steps = Steps(model.graphs, config, conditions)
    missing = past - int(steps.cache.used[0])
    present = {
        name.replace("past.", "present.", 1): np.zeros((*each.shape[:2], missing, each.shape[3]), np.float32)
        for name, each in steps.cache.past.items()
    }
    steps.cache.append(present, missing)
    slots = np.full(rows, past)
    steps.cache.put(present, slots)  # the buffers grow here, and no more
    steps.cache.used = slots
    for buffer in steps.cache.past.values():
        buffer[:] = 0
    uniform = _uniform(rows, len(config.split))
    position = np.full((rows, 1), _position(past, config.length))
    mask = steps.cache.visible(1)

    def call() -> np.ndarray:
        found = steps.step(codes[:, None], position, mask)
        steps.cache.put(found, slots)
        return steps.choose(found["context"][:, 0], array_sampling.chooser(uniform, Sampling(), None))

    return call


def _uniform(rows: int, parts: int) -> np.ndarray:
    return row_uniform(range(rows), 1, parts)[:, 0]


def _position(past: int, length: int) -> int:
    return min(past, length - 1)
