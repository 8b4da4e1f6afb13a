"""Whole images of a generator by run time: every token, then the decoder.

With random weights a code hardly ever repeats, so that the cache of merge_ar keeps every token and its time is that of
raster; bench_generation.py asks what the cache saves. Here the question is what a run time makes of the same
generation. torch.compile makes the passes, not the decoder.
"""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from mergevq.bench.measuring.by_runtime import BATCHES, Case, parametrized, time_generator, variants
from mergevq.bench.subjects.cases import FULL, THREADS
from mergevq.bench.subjects.models import kinds, positions
from mergevq.bench.subjects.runtimes import Where, images_call

CASES = [
    Case("images", kind, runtime, precision, positions(), batch)
    for kind in kinds()
    for runtime, precision in variants(["eager-float16"] if FULL else ["eager-float16", "compile"])
    for batch in BATCHES
    if batch == 1 or FULL
]


@pytest.mark.parametrize("threads", THREADS[-1:], indirect=True)
@parametrized(CASES)
def test_images(benchmark: BenchmarkFixture, case: Case, where: Where) -> None:
    found = time_generator(
        benchmark, case, where, lambda opened: images_call(opened, case.batch, where.device)
    )
    assert len(found) == case.batch
