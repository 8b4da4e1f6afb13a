"""Encoding and decoding at each preset's own resolution: threads, precision, memory layout, batch."""

from __future__ import annotations

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from mergevq.backends import Device
from mergevq.bench.subjects.cases import (
    PRESETS,
    SMALL,
    THREADS,
    counted,
    describe,
    finished,
    images,
    tokenizer,
)
from mergevq.models.tokenizer.tokenizer import Tokenizer

CASES = [(name, batch) for name in PRESETS for batch in ([1, 8] if name in SMALL else [1])]

pytestmark = [
    pytest.mark.benchmark(warmup=True, warmup_iterations=1),
    pytest.mark.parametrize("precision", ["32", "bf16"]),
    pytest.mark.parametrize("threads", THREADS, indirect=True),
    # The outermost loops, as a model is built anew for each of their values.
    pytest.mark.parametrize("channels_last", [False, True], ids=["channels_first", "channels_last"]),
    pytest.mark.parametrize(("preset", "batch"), CASES),
]


def named(benchmark: BenchmarkFixture, group: str, case: tuple[str, int, int, str, bool]) -> None:
    """Puts a case into its table: precision and layout across, everything else down."""
    preset, batch, threads, precision, channels_last = case
    column = ("float32" if precision == "32" else precision) + (", channels last" if channels_last else "")
    row = f"{preset}, {counted(batch, 'image')}, {counted(threads, 'thread')}"
    describe(benchmark, group=group, row=row, column=column, images=batch)


def build(preset: str, batch: int, channels_last: bool, device: Device) -> tuple[Tokenizer, torch.Tensor]:
    """The model and a batch for it."""
    model = tokenizer(preset, device.name, channels_last)
    return model, images(model.config.image_size, batch, device.name, channels_last)


def test_encode(
    benchmark: BenchmarkFixture,
    preset: str,
    batch: int,
    channels_last: bool,
    threads: int,
    precision: str,
    device: Device,
) -> None:
    named(benchmark, "encode", (preset, batch, threads, precision, channels_last))
    model, pictures = build(preset, batch, channels_last, device)
    with torch.inference_mode(), device.autocast(precision):
        tokens = benchmark(finished(lambda: model.encode(pictures), device))
    assert tokens.indices.shape == (batch, model.config.merge.keep)


def test_decode(
    benchmark: BenchmarkFixture,
    preset: str,
    batch: int,
    channels_last: bool,
    threads: int,
    precision: str,
    device: Device,
) -> None:
    named(benchmark, "decode", (preset, batch, threads, precision, channels_last))
    model, pictures = build(preset, batch, channels_last, device)
    with torch.inference_mode(), device.autocast(precision):
        tokens = model.encode(pictures)
        painted = benchmark(finished(lambda: model.decode(tokens), device))
    assert painted.shape == pictures.shape
