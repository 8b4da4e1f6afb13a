"""Generating tokens: raster beside merge_ar with the same code, and rand_ar at several steps.

Weights are random, and would hardly ever repeat one of 2^18 codes; so what is sampled is replaced by one of
as many codes as the case wants distinct. All that generation costs is paid, and the cache behaves as with a trained
model. Codes arrive in one of two ways. "even": a new one every so many tokens, as in the tokens of pictures (of
those of CIFAR-10 a quarter, a half and three quarters have appeared after 17, 32 and 46 of 64 positions). "early":
drawn without order, so that most have appeared after a third of the picture; that is harder for merge_ar.
Peak memory is that of keys and values at the end, which only ever grow.

Each timing is also given as a multiple of what its memory traffic would take: in each pass the weights of the
backbone once, those of the head once a sub-code, and the visible keys and values, at the rate at which this
machine reads memory.

Legend: L positions, K kept tokens.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from mergevq.backends import Device
from mergevq.bench.subjects.cases import FULL, THREADS, counted, describe, finished
from mergevq.generation.cache import KVCache
from mergevq.generation.parallel import generate_at
from mergevq.generation.request import Request
from mergevq.generation.sequential import generate_raster
from mergevq.generator_config import GeneratorConfig, GeneratorKind, generator_config
from mergevq.models.generators.autoregressive import Generator
from mergevq.models.generators.subcodes import SubcodeHead
from mergevq.presets import preset

SIZE = "B" if FULL else "nano"
LONG = "G" if FULL else "tiny-32"
SHORT = "G+R" if FULL else "tiny-32"
BATCHES = [1, 8, 32] if FULL else [2]
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}
CLASSES = 1000
Arrival = Literal["even", "early"]
ORDERS: list[tuple[GeneratorKind, Arrival]] = [
    ("raster", "even"),
    ("merge_ar", "even"),
    ("merge_ar", "early"),
]


def make(config: GeneratorConfig, device: Device, dtype: torch.dtype) -> Generator:
    """A generator with random weights."""
    torch.manual_seed(0)
    model = Generator(config).to(device.name, dtype).eval()
    for weight in model.head.outputs.parameters():
        torch.nn.init.normal_(weight, std=0.02)
    return model


def repeat_codes(patch: pytest.MonkeyPatch, model: Generator, distinct: int, arrival: Arrival) -> None:
    """Makes models like it say `distinct` different codes in the course of L tokens, and begin anew after those."""
    length = model.config.length
    order = torch.randperm(2**model.config.bits, generator=torch.Generator().manual_seed(1))
    said = order[:distinct].to(model.device)
    numbers = itertools.cycle(range(length))
    sample = SubcodeHead.sample

    def repeating(head: SubcodeHead, *given: Any) -> torch.Tensor:
        drawn, number = sample(head, *given), next(numbers)
        if arrival == "early":
            return said[drawn % distinct]
        newest = number * distinct // length
        is_new = number == 0 or newest > (number - 1) * distinct // length
        return said[torch.full_like(drawn, newest) if is_new else drawn % (newest + 1)]

    patch.setattr(SubcodeHead, "sample", repeating)


def request(config: GeneratorConfig, batch: int, keep: int, device: Device, guidance: float = 1.0) -> Request:
    """Classes in turn."""
    labels = torch.arange(batch, device=device.name) % config.classes
    keeps = torch.full_like(labels, keep)
    return Request(labels=labels, keep=keeps, seeds=list(range(batch)), guidance=guidance)


def generator(kind: GeneratorKind, tokenizer: str) -> GeneratorConfig:
    """A size for ImageNet's classes."""
    return generator_config(SIZE, kind, preset(tokenizer), classes=CLASSES)


@functools.cache
def reading_rate(device: Device, threads: int) -> float:
    """Bytes a second at which so many threads read memory that is in no cache; the best of several."""
    x = torch.ones(2**26 if FULL else 2**20, device=device.name)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        x.sum()
        device.synchronize()
        seconds.append(time.perf_counter() - start)
    return x.nbytes / min(seconds)


@pytest.fixture
def visible(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of keys and values that each pass is given."""
    passes: list[int] = []
    given = KVCache.next

    def noted(cache: KVCache, slots: torch.Tensor | int, visible: int) -> None:
        given(cache, slots, visible)
        passes.append(cache.bytes * visible // cache.capacity)

    monkeypatch.setattr(KVCache, "next", noted)
    return passes


def measure(
    benchmark: BenchmarkFixture, model: Generator, run: Any, device: Device, threads: int, visible: list[int]
) -> None:
    """Once to warm up in the small, then as often as full runs can afford; cache and traffic go on record."""
    _, use = benchmark.pedantic(finished(run, device), rounds=1, warmup_rounds=0 if FULL else 1)
    weights = sum(parameter.nbytes for parameter in model.parameters())
    again = sum(parameter.nbytes for parameter in model.head.transformer.parameters())
    weights += (len(model.config.split) - 1) * again
    traffic = use.passes * weights + sum(visible[-use.passes :])
    benchmark.extra_info |= {
        "cache slots": use.slots,
        "passes": use.passes,
        "cache_bytes": use.bytes,
        "traffic_seconds": traffic / reading_rate(device, threads),
    }


@pytest.fixture
def time_order(
    benchmark: BenchmarkFixture, device: Device, visible: list[int], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """Times L tokens one after another, in one of `ORDERS`."""

    def run(
        order: tuple[GeneratorKind, Arrival], batch: int, dtype: str, threads: int, guidance: float = 1.0
    ) -> None:
        kind, arrival = order
        config = generator(kind, LONG)
        keep = config.counts[0]
        guided = "" if guidance == 1 else ", guided: two rows an image"
        describe(
            benchmark,
            group=f"{config.length} tokens, about {keep} of them distinct, size {SIZE}{guided}",
            row=f"{counted(batch, 'image')}, {counted(threads, 'thread')}, {dtype}",
            column=kind if kind == "raster" else f"{kind}, {arrival}",
            images=batch,
        )
        model = make(config, device, DTYPES[dtype])
        repeat_codes(monkeypatch, model, keep, arrival)
        asked = request(config, batch, keep, device, guidance)
        measure(benchmark, model, lambda: generate_raster(model, asked), device, threads, visible)

    return run


@pytest.mark.parametrize("threads", THREADS[-1:], indirect=True)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize(("kind", "arrival"), ORDERS)
def test_raster_order(
    time_order: Callable[..., None],
    kind: GeneratorKind,
    arrival: Arrival,
    batch: int,
    dtype: str,
    threads: int,
) -> None:
    time_order((kind, arrival), batch, dtype, threads)


@pytest.mark.parametrize("threads", THREADS[-1:], indirect=True)
@pytest.mark.parametrize(("kind", "arrival"), ORDERS[:2])
def test_guided(time_order: Callable[..., None], kind: GeneratorKind, arrival: Arrival, threads: int) -> None:
    time_order((kind, arrival), BATCHES[-1], "float32", threads, guidance=2.0)


@pytest.mark.parametrize("threads", THREADS[-1:], indirect=True)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("steps", [64, 144] if FULL else [8])
@pytest.mark.parametrize("batch", BATCHES)
def test_random_order(
    benchmark: BenchmarkFixture,
    batch: int,
    steps: int,
    dtype: str,
    threads: int,
    device: Device,
    visible: list[int],
) -> None:
    config = generator("rand_ar", SHORT)
    keep = config.counts[0]
    describe(
        benchmark,
        group=f"{keep} tokens at random positions, size {SIZE}",
        row=f"{counted(batch, 'image')}, {counted(threads, 'thread')}",
        column=f"{counted(steps, 'step')}, {dtype}",
        images=batch,
    )
    model = make(config, device, DTYPES[dtype])
    asked = request(config, batch, keep, device)
    positions = torch.arange(keep, device=device.name).expand(batch, -1)
    measure(benchmark, model, lambda: generate_at(model, asked, positions, steps), device, threads, visible)
