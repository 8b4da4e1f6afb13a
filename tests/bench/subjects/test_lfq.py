from __future__ import annotations

import pytest
import torch

from mergevq.bench.subjects.lfq import LIBRARIES, can_measure_memory, entropy_loss, entropy_step, peak_memory


@pytest.mark.parametrize("bits", [3, 8, 11])
def test_both_libraries_compute_the_same_loss(bits):
    pytest.importorskip("vector_quantize_pytorch")
    # So small that every probability is above 1e-5, below which the other library's logarithm is cut off.
    z = torch.randn(50, bits) / 1000
    ours, theirs = (entropy_loss(library, bits)(z) for library in LIBRARIES)
    assert ours.abs() > 1e-3
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_step_returns_the_gradient_of_the_loss(library):
    pytest.importorskip(library.replace("-", "_"))
    gradient = entropy_step(library, 6, 20)()
    assert gradient.shape == (20, 6)
    assert gradient.abs().max() > 1e-3
    assert torch.equal(gradient, entropy_step(library, 6, 20)())


@pytest.mark.skipif(not can_measure_memory(), reason="this system has no high-water mark to set back")
def test_peak_memory_is_about_that_of_the_tensors():
    half_distributions = 2 * 4096 * 2**9 * 4  # bytes of the two (n, 2^9)
    found = peak_memory("mergevq", 18, 4096)
    assert half_distributions < found < 10 * half_distributions
