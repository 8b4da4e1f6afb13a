"""The LFQ entropy loss, forward and backward: time and peak memory, beside vector-quantize-pytorch's."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from mergevq.backends import Device
from mergevq.bench.subjects.cases import FULL, counted, describe, finished
from mergevq.bench.subjects.lfq import LIBRARIES, Library, can_measure_memory, entropy_step, peak_memory

LARGEST = 2**27
"""Elements of the (tokens, 2^bits) tensors, each 512 MiB, up to which the other library is asked."""


def sizes() -> list[tuple[int, int]]:
    """(bits, tokens) of the cases."""
    if not FULL:
        return [(10, 64)]
    return [*((bits, 2048) for bits in (10, 12, 14, 16)), (18, LARGEST >> 18), (18, 2048), (18, 16384)]


CASES = [
    (library, bits, tokens)
    for bits, tokens in sizes()
    for library in LIBRARIES
    if library == "mergevq" or tokens << bits <= LARGEST
]


@pytest.mark.benchmark(warmup=True, warmup_iterations=1)
@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(("library", "bits", "tokens"), CASES)
def test_entropies(
    benchmark: BenchmarkFixture, library: Library, bits: int, tokens: int, device: Device
) -> None:
    pytest.importorskip(library.replace("-", "_"))
    describe(
        benchmark,
        group="LFQ entropy loss, forward and backward, 1 thread",
        row=f"d = {bits}, {counted(tokens, 'token')}",
        column=library,
    )
    gradient = benchmark(finished(entropy_step(library, bits, tokens, device.name), device))
    assert gradient.shape == (tokens, bits) and gradient.isfinite().all()
    if benchmark.enabled and device.name == "cpu" and can_measure_memory():
        benchmark.extra_info["peak_bytes"] = peak_memory(library, bits, tokens)
