"""Tokens to images by run time.

What decoding costs hardly depends on K, so that other kept counts than the usual one stand for one image alone.
"""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from mergevq.bench.measuring.by_runtime import BATCHES, Case, parametrized, time_tokenizer, tokenizer_cases
from mergevq.bench.subjects.cases import THREADS
from mergevq.bench.subjects.runtimes import Where

CASES = [
    *tokenizer_cases("decode", batches=BATCHES[:1], other_keeps=True),
    *tokenizer_cases("decode", batches=BATCHES[1:], other_keeps=False, without=["compile"]),
]


@pytest.mark.parametrize("threads", THREADS[-1:], indirect=True)
@parametrized(CASES)
def test_decode(benchmark: BenchmarkFixture, case: Case, where: Where) -> None:
    found = time_tokenizer(benchmark, case, where)
    assert len(found) == case.batch and found.min() >= -1 and found.max() <= 1
