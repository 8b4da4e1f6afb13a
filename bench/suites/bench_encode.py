"""Images to tokens: PyTorch, torch.compile, ONNX Runtime and TensorRT, each beside PyTorch in float32."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from mergevq.bench.measuring.by_runtime import BATCHES, Case, parametrized, time_tokenizer, tokenizer_cases
from mergevq.bench.subjects.cases import FULL, THREADS
from mergevq.bench.subjects.runtimes import Where

# Compiling takes a minute: a smoke run waits for that of the decoder alone.
CASES = tokenizer_cases("encode", batches=BATCHES, other_keeps=True, without=[] if FULL else ["compile"])


@pytest.mark.parametrize("threads", THREADS[-1:], indirect=True)
@parametrized(CASES)
def test_encode(benchmark: BenchmarkFixture, case: Case, where: Where) -> None:
    found = time_tokenizer(benchmark, case, where)
    assert tuple(found.indices.shape) == (case.batch, case.keep)
