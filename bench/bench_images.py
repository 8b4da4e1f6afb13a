"""Whole images of a generator by run time: every token, then the decoder.

With random weights a code hardly ever repeats, so that the cache of merge_ar keeps every token and its time is that of
raster; bench_generation.py asks what the cache saves. Here the question is what a run time makes of the same
generation. torch.compile makes the passes, not the decoder.
"""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from mergevq.bench import runtimes
from mergevq.bench.by_runtime import BATCHES, Case, open_or_skip, parametrized, time_case, variants
from mergevq.bench.cases import FULL, THREADS
from mergevq.bench.runtimes import BASELINE, Where
from mergevq.bench.subjects import kinds, positions

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
    opened = open_or_skip(
        benchmark, case, lambda: runtimes.open_generator(case.subject, case.runtime, case.precision, where)
    )
    base = runtimes.open_generator(case.subject, *BASELINE, where)
    run, baseline = (runtimes.images_call(each, case.batch, where.device) for each in (opened, base))
    found = time_case(benchmark, case, where, opened, run, baseline)
    assert len(found) == case.batch
