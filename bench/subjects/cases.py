"""What the timings have in common: which cases there are, their inputs, and how one is measured and named.

By default every case is small, so that it is also a test; the environment variable MERGEVQ_BENCH=full
asks for the paper's presets too, which takes the better part of an hour on two cores.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import torch
from pytest_benchmark.fixture import BenchmarkFixture

import mergevq
from mergevq.backends import Device
from mergevq.errors import UsageError, unknown_name
from mergevq.models.tokenizer.tokenizer import Tokenizer


def _is_full() -> bool:
    mode = os.environ.get("MERGEVQ_BENCH", "smoke")
    if mode not in ("smoke", "full"):
        raise UsageError(unknown_name("MERGEVQ_BENCH", mode, ("smoke", "full")))
    return mode == "full"


FULL = _is_full()
"""Whether to time everything, or only what a test can wait for."""

SMALL = ["tiny-32", "small-64"] if FULL else ["tiny-32"]
"""Presets that one trains on such a machine."""

PRESETS = ["G", "G+R", "R", *SMALL] if FULL else SMALL
"""Presets in the order of the report."""

_ASKED = os.environ.get("MERGEVQ_BENCH_THREADS")

THREADS = [int(_ASKED)] if _ASKED else [1, 2] if FULL and (os.cpu_count() or 1) > 1 else [1]
"""Values of the fixture `threads`; MERGEVQ_BENCH_THREADS asks for one."""


@functools.lru_cache(maxsize=1)
def tokenizer(name: str, device: str, channels_last: bool = False) -> Tokenizer:
    """A preset with random weights; the latest one is kept, so neighbouring cases should share it."""
    torch.manual_seed(0)
    return mergevq.create(name).to(device).to(memory_format=layout(channels_last)).eval()


def layout(channels_last: bool) -> torch.memory_format:
    """The memory format of images and of convolution weights."""
    return torch.channels_last if channels_last else torch.contiguous_format


def images(size: int, batch: int, device: str, channels_last: bool = False) -> torch.Tensor:
    """(batch, 3, size, size) in [-1, 1]: noise, the same every time."""
    noise = torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return noise.to(device).to(memory_format=layout(channels_last))


def describe(
    benchmark: BenchmarkFixture, *, group: str, row: str, column: str, images: int | None = None
) -> None:
    """Says where in the report a timing belongs.

    Args:
        benchmark: of the case.
        group: the table.
        row: what is timed.
        column: the variant of it.
        images: pictures that one call deals with, where images a second are of interest.
    """
    benchmark.group = group
    benchmark.extra_info |= {"row": row, "column": column}
    if images is not None:
        benchmark.extra_info["images"] = images


def finished(function: Callable[[], Any], device: Device) -> Callable[[], Any]:
    """`function`, returning only when the device has done what it queued."""

    def run() -> Any:
        result = function()
        device.synchronize()
        return result

    return run


def counted(number: int, noun: str) -> str:
    """A number with its noun: "1 thread", "2,048 tokens"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
