"""What merging costs beside the rest of the encoder.

The parts of merging are timed on inputs of the shapes that the blocks have, summed over the schedule. Each
round is preceded by a pass of the whole encoder, so that the share is a median of paired ratios.

Legend: B batch, T tokens with the class token, D width, E head width.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from mergevq.backends import Device, bipartite_match, merge
from mergevq.bench.subjects.cases import FULL, PRESETS, describe, finished, images, tokenizer
from mergevq.config import TokenizerConfig
from mergevq.models.tokenizer.merge import follow, merge_schedule

ROUNDS = 15 if FULL else 1

pytestmark = pytest.mark.usefixtures("threads")


class Merging(NamedTuple):
    """What one block hands to the operators."""

    keys: torch.Tensor
    """(B, T, E)."""
    merges: int
    x: torch.Tensor
    """(B, T, D)."""
    size: torch.Tensor
    """(B, T)."""
    source: torch.Tensor | None
    """(B, 1 + L)."""
    assign: torch.Tensor
    """(B, T)."""

    @property
    def length(self) -> int:
        """Tokens afterwards."""
        return self.x.shape[1] - self.merges


def mergings(config: TokenizerConfig, batch: int, device: str) -> list[Merging]:
    """The mergings of one pass through the encoder, on random tokens."""
    generator = torch.Generator().manual_seed(0)
    width, heads = config.encoder.width, config.encoder.heads
    x = torch.randn(batch, config.length + 1, width, generator=generator).to(device)
    size = x.new_ones(x.shape[:2])
    source = None
    found = []
    for merges in merge_schedule(
        config.length, config.merge.keep, config.encoder.depth, config.merge.schedule
    ):
        if merges:
            keys = torch.randn(batch, x.shape[1], width // heads, generator=generator).to(device)
            assign = bipartite_match(keys, merges, 1)
            found.append(Merging(keys, merges, x, size, source, assign))
            x, size = merge(x, size, assign, found[-1].length)
            source = follow(source, assign)
    return found


PARTS: dict[str, Callable[[Merging], Any]] = {
    "matching": lambda step: bipartite_match(step.keys, step.merges, 1),
    "merging": lambda step: merge(step.x, step.size, step.assign, step.length),
    "source tracking": lambda step: follow(step.source, step.assign),
}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("preset", PRESETS)
def test_share_of_the_encoder(benchmark: BenchmarkFixture, preset: str, part: str, device: Device) -> None:
    describe(
        benchmark, group="merging in one pass of the encoder, 1 image, 1 thread", row=preset, column=part
    )
    model = tokenizer(preset, device.name)
    config = model.config
    pictures = images(config.image_size, 1, device.name)
    encode = finished(lambda: model.encoder(pictures, config.merge.keep), device)
    passes: list[float] = []

    def whole() -> None:
        start = time.perf_counter()
        encode()
        passes.append(time.perf_counter() - start)

    with torch.inference_mode():
        steps = mergings(config, 1, device.name)
        run = finished(lambda: [PARTS[part](step) for step in steps], device)
        done = benchmark.pedantic(run, setup=whole, rounds=ROUNDS, warmup_rounds=1)
    assert len(done) == len(steps) > 0
    if benchmark.stats is not None:
        taken = benchmark.stats.stats.data
        ratios = [one / all_ for one, all_ in zip(taken, passes[-len(taken) :], strict=True)]
        benchmark.extra_info["share"] = statistics.median(ratios)


@pytest.mark.benchmark(warmup=True, warmup_iterations=1)
@pytest.mark.parametrize("merged", [True, False], ids=["merged", "unmerged"])
@pytest.mark.parametrize("preset", PRESETS)
def test_encoder(benchmark: BenchmarkFixture, preset: str, merged: bool, device: Device) -> None:
    model = tokenizer(preset, device.name)
    config = model.config
    keep = config.merge.keep if merged else config.length
    describe(
        benchmark,
        group="the encoder with and without merging, 1 thread",
        row=f"{preset}, {config.merge.keep} of {config.length}",
        column="merging" if merged else "every token kept",
        images=1,
    )
    pictures = images(config.image_size, 1, device.name)
    with torch.inference_mode():
        encoding = benchmark(finished(lambda: model.encoder(pictures, keep), device))
    assert encoding.tokens.shape[1] == keep
