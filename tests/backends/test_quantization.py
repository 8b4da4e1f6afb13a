from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mergevq.backends import codes_of, lfq_entropies, lfq_quantize


def brute_force_entropies(z: torch.Tensor, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Softmax over all 2^d codes, one column each."""
    bits = z.shape[-1]
    every = torch.tensor(
        [[1.0 if code >> bit & 1 else -1.0 for bit in range(bits)] for code in range(2**bits)]
    )
    log_p = (2 * z.reshape(-1, bits) @ every.to(z.dtype).T / temperature).log_softmax(dim=-1)
    mean = log_p.exp().mean(dim=0)
    return -(log_p.exp() * log_p).sum(dim=-1).mean(), -torch.xlogy(mean, mean).sum()


numbers = st.floats(-10, 10, width=32)


@given(
    st.integers(1, 31).flatmap(
        lambda d: st.lists(st.lists(numbers, min_size=d, max_size=d), min_size=1, max_size=4)
    )
)
@settings(deadline=None, max_examples=60)
def test_quantize_is_the_sign_and_its_little_endian_number(rows):
    codes, indices = lfq_quantize(torch.tensor(rows))
    for row, code, index in zip(rows, codes.tolist(), indices.tolist(), strict=True):
        assert code == [1.0 if value > 0 else -1.0 for value in row]
        assert index == sum(2**bit for bit, value in enumerate(row) if value > 0)
    assert torch.equal(codes_of(indices, len(rows[0])), codes)


@given(st.data(), st.integers(1, 31))
@settings(deadline=None, max_examples=60)
def test_indices_survive_the_way_to_codes_and_back(data, bits):
    indices = torch.tensor(data.draw(st.lists(st.integers(0, 2**bits - 1), min_size=1, max_size=5)))
    codes = codes_of(indices, bits)
    assert codes.shape == (*indices.shape, bits)
    assert torch.equal(lfq_quantize(codes)[1], indices)


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_zero_becomes_minus_one(zero):
    codes, indices = lfq_quantize(torch.full((2, 4), zero))
    assert codes.eq(-1).all() and indices.eq(0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_codes_are_exact_and_pass_the_gradient_straight_through(dtype):
    z = (torch.randn(3, 5, 18) * 1e4).to(dtype).requires_grad_()
    codes, _ = lfq_quantize(z)
    assert codes.dtype == dtype and codes.abs().eq(1).all()
    weight = torch.randn_like(codes)
    (codes * weight).sum().backward()
    assert torch.equal(z.grad, weight)


@pytest.mark.parametrize("bits", range(1, 11))
@pytest.mark.parametrize("temperature", [0.3, 5.0])
def test_entropies_equal_the_softmax_over_all_codes(bits, temperature):
    z = torch.randn(4, 3, bits, dtype=torch.float64, requires_grad=True)
    for got, wanted in zip(lfq_entropies(z, temperature), brute_force_entropies(z, temperature), strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-8)
        (gradient,) = torch.autograd.grad(got, z, retain_graph=True)
        (brute,) = torch.autograd.grad(wanted, z, retain_graph=True)
        torch.testing.assert_close(gradient, brute, rtol=0, atol=1e-8)


@pytest.mark.parametrize("scale", [0.02, 0.3, 3.0, 30.0])
def test_float32_is_near_float64_at_the_training_temperature(scale):
    z = torch.randn(500, 18) * scale
    for single, double in zip(lfq_entropies(z, 0.01), lfq_entropies(z.double(), 0.01), strict=True):
        assert single.dtype == torch.float32
        torch.testing.assert_close(single.double(), double, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("bits", [5, 8])
def test_entropies_are_near_those_of_a_published_library(bits):
    library = pytest.importorskip("vector_quantize_pytorch")
    quantizer = library.LFQ(
        dim=bits, entropy_loss_weight=1.0, diversity_gamma=1.0, commitment_loss_weight=0.0
    )
    z = torch.randn(2, 50, bits) * 0.4
    for scale in (1.0, 4.0):
        _, breakdown = quantizer(z, inv_temperature=scale, return_loss_breakdown=True)
        sample, codebook = lfq_entropies(z, 1 / scale)
        assert sample.item() == pytest.approx(breakdown.per_sample_entropy.item(), abs=2e-3)
        assert codebook.item() == pytest.approx(breakdown.batch_entropy.item(), abs=2e-3)


def test_limits_are_known_in_closed_form():
    sample, codebook = lfq_entropies(torch.zeros(3, 9), 0.01)  # every code equally likely
    assert sample.item() == pytest.approx(9 * math.log(2)) and codebook.item() == pytest.approx(
        9 * math.log(2)
    )
    corners = codes_of(torch.arange(2**6), 6)  # every code once, surely
    sample, codebook = lfq_entropies(corners, 0.01)
    assert sample.item() == pytest.approx(0) and codebook.item() == pytest.approx(6 * math.log(2))
    sample, codebook = lfq_entropies(torch.ones(5, 18), 0.01)  # one code only
    assert sample.item() == pytest.approx(0) and codebook.item() == pytest.approx(0)


@given(st.integers(1, 9), st.integers(0, 2**31 - 1), st.floats(0.01, 10))
@settings(deadline=None, max_examples=40)
def test_the_mean_has_at_least_the_mean_entropy_and_at_most_d_bits(bits, seed, temperature):
    z = torch.randn(17, bits, generator=torch.Generator().manual_seed(seed))
    sample, codebook = lfq_entropies(z, temperature)
    assert 0 <= sample <= codebook + 1e-5 <= bits * math.log(2) + 2e-5


@pytest.mark.parametrize("scale", [1e2, 1e6, 1e30])
@pytest.mark.parametrize("bits", [7, 18])
def test_saturated_values_give_finite_gradients(scale, bits):
    z = (torch.randn(64, bits) * scale).requires_grad_()
    sample, codebook = lfq_entropies(z, 0.01)
    (sample - codebook).backward()
    assert sample.isfinite() and codebook.isfinite() and z.grad.isfinite().all()


def test_signs_of_a_dimension_are_treated_alike():
    z = torch.randn(100, 10)
    for one, other in zip(lfq_entropies(z, 0.1), lfq_entropies(-z, 0.1), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_autocast_changes_nothing():
    z = torch.randn(30, 12)
    plain = lfq_entropies(z, 0.01)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = lfq_entropies(z, 0.01)
        lowered = lfq_entropies(z.bfloat16(), 0.01)
    assert torch.equal(torch.stack(plain), torch.stack(mixed))
    assert all(value.dtype == torch.float32 for value in lowered)


def test_reduce_replaces_the_mean_distribution():
    z = torch.randn(8, 4)
    seen = []

    def uniform(mean: torch.Tensor) -> torch.Tensor:
        seen.append(mean)
        return torch.full_like(mean, 1 / mean.numel())

    _, codebook = lfq_entropies(z, 0.5, uniform)
    assert codebook.item() == pytest.approx(4 * math.log(2))
    assert seen[0].numel() == 16 and seen[0].sum().item() == pytest.approx(1)


MEASURE = """
import re, torch
from pathlib import Path
from mergevq.backends import lfq_entropies

torch.set_num_threads(1)

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

warm = torch.randn(4, 18, requires_grad=True)
sum(lfq_entropies(warm, 0.01)).backward()
z = torch.randn(16384, 18, requires_grad=True)
Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
before = peak()
sample, codebook = lfq_entropies(z, 0.01)
(sample - codebook).backward()
assert z.grad.isfinite().all()
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_memory_stays_under_a_gibibyte_at_full_size(run_python):
    """One tensor of 16,384 x 2^18 would take 16 GiB."""
    result = run_python("-c", MEASURE)
    assert result.returncode == 0, result.stderr
    assert 2**20 < int(result.stdout) < 2**30
