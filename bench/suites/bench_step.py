"""One step of a generator by run time, with a short and with a long cache.

The step of raster is that of merge_ar too, whose cache is shorter: K and the window instead of L. torch.compile is
left out, as it compiles for the shapes of a whole generation: see bench_images.py.
"""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from mergevq.bench.measuring.by_runtime import BATCHES, Case, parametrized, time_generator, variants
from mergevq.bench.subjects.cases import FULL, THREADS
from mergevq.bench.subjects.models import kinds, positions
from mergevq.bench.subjects.runtimes import Where
from mergevq.bench.subjects.steps import step_call

CASES = [
    Case("step", kind, runtime, precision, past, batch)
    for kind in kinds()[:1]
    for runtime, precision in variants(["compile", "eager-float16"])
    for past in ([positions() // 4, positions() * 5 // 8, positions() - 1] if FULL else [40])
    for batch in BATCHES
]


@pytest.mark.parametrize("threads", THREADS[-1:], indirect=True)
@parametrized(CASES)
def test_step(benchmark: BenchmarkFixture, case: Case, where: Where) -> None:
    found = time_generator(
        benchmark, case, where, lambda opened: step_call(opened, case.batch, case.keep, where)
    )
    assert found.shape == (case.batch,)
