"""One optimiser step of the small presets: the training module's own step, on pictures that are in memory."""

from __future__ import annotations

import pytest
import torch
from lightning.fabric import Fabric
from pytest_benchmark.fixture import BenchmarkFixture

from mergevq.backends import Device
from mergevq.bench.subjects.cases import FULL, SMALL, THREADS, counted, describe, finished
from mergevq.config import override
from mergevq.data.images.dataset import Batch
from mergevq.models.tokenizer.tokenizer import Tokenizer
from mergevq.training.tokenizer.config import TokenizerRun
from mergevq.training.tokenizer.module import TokenizerTraining
from mergevq.training.tokenizer.recipes import recipe


def configuration(preset: str) -> TokenizerRun:
    """The preset's recipe, always with its own kept count: every step does the same work."""
    changes: dict[str, object] = {"keep.kind": "fixed"}
    return override(recipe(preset), changes if FULL else {**changes, "train.batch_size": 2})


def noise(config: TokenizerRun, device: Device) -> Batch:
    """A batch of noise."""
    count, size = config.train.batch_size, config.model.image_size
    pictures = torch.randint(256, (count, 3, size, size), dtype=torch.uint8)
    names = [f"noise {number}" for number in range(count)]
    return Batch(pictures.to(device.name), torch.zeros(count, dtype=torch.int64), names, None, [])


@pytest.mark.benchmark(warmup=True, warmup_iterations=1)
@pytest.mark.parametrize("threads", THREADS, indirect=True)
@pytest.mark.parametrize("precision", ["32", "bf16"])
@pytest.mark.parametrize("preset", SMALL)
def test_optimiser_step(
    benchmark: BenchmarkFixture, preset: str, precision: str, threads: int, device: Device
) -> None:
    config = configuration(preset)
    count = config.train.batch_size
    describe(
        benchmark,
        group="optimiser step",
        row=f"{preset}, {counted(count, 'image')}, {counted(threads, 'thread')}",
        column="float32" if precision == "32" else precision,
        images=count,
    )
    torch.manual_seed(0)
    module = TokenizerTraining(config, Tokenizer(config.model), steps=1_000, global_batch=count)
    fabric = Fabric(
        accelerator=device.name, devices=1, precision="bf16-mixed" if precision == "bf16" else "32-true"
    )
    wrapped, *_ = fabric.setup(module, *module.configure_optimizers())
    batch = noise(config, device)
    benchmark(finished(lambda: wrapped.training_step(batch, 0), device))
    assert module.steps_done > 0 and module.progress["loss"].isfinite()
