"""Images to tokens and back by run time, and what comes back beside what went in.

torch.compile is left out: the time is that of its encoding and its decoding together, and the compiling would
double.
"""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from mergevq.bench.measuring.by_runtime import BATCHES, Case, parametrized, time_tokenizer, tokenizer_cases
from mergevq.bench.measuring.quality import quality
from mergevq.bench.subjects import runtimes
from mergevq.bench.subjects.cases import THREADS
from mergevq.bench.subjects.runtimes import BASELINE, Where

CASES = tokenizer_cases("roundtrip", batches=BATCHES[:1], other_keeps=False, without=["compile"])


@pytest.mark.parametrize("threads", THREADS[-1:], indirect=True)
@parametrized(CASES)
def test_round_trip(benchmark: BenchmarkFixture, case: Case, where: Where) -> None:
    found = time_tokenizer(benchmark, case, where)
    assert len(found) == case.batch
    if benchmark.enabled:
        opened, base = (
            runtimes.open_tokenizer(case.subject, *variant, where)
            for variant in ((case.runtime, case.precision), BASELINE)
        )
        benchmark.extra_info |= quality(opened, base, case.keep, where)
