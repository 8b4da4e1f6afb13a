"""The Triton kernels against the references, in Triton's interpreter; test_triton.py runs this file.

The interpreter is chosen by an environment variable before triton is imported, which is a process of its own.
"""

from __future__ import annotations

import math

import pytest
import torch

from mergevq.backends import bipartite_match, lfq_entropies, merge
from mergevq.backends.cuda import triton_decode, triton_lfq, triton_match, triton_merge
from mergevq.backends.cuda.merging import merge_triton
from mergevq.backends.cuda.quantization import lfq_entropies_triton

# Where a kernel counts on infinities, as a GPU has them, the interpreter's NumPy warns.
pytestmark = pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def softmax_attention(query, key, value, valid):
    """The definition, in float64; a row without a valid slot gives zeros."""
    scores = query.double() @ key.double().transpose(2, 3) / math.sqrt(query.shape[-1])
    if valid is not None:
        scores = scores.masked_fill(~valid.unsqueeze(1), -math.inf)
    return scores.softmax(dim=-1).nan_to_num(0.0) @ value.double()


def prefixes(lengths: list[int], slots: int) -> torch.Tensor:
    return (torch.arange(slots) < torch.tensor(lengths).unsqueeze(1)).unsqueeze(1)


@pytest.mark.parametrize("programs", [1, 256])
@pytest.mark.parametrize(
    ("rows", "slots", "width"), [(1, 1, 8), (2, 64, 16), (3, 130, 64), (2, 97, 24)], ids=str
)
def test_decode_attention(monkeypatch, programs, rows, slots, width):
    monkeypatch.setattr(triton_decode, "_PROGRAMS", programs)
    query = noise(rows, 2, 1, width)
    key, value = noise(rows, 2, slots, width, seed=1), noise(rows, 2, slots, width, seed=2)
    scattered = torch.rand(rows, 1, slots, generator=torch.Generator().manual_seed(3)) < 0.3
    ragged = prefixes([slots, 1, slots // 2][:rows], slots)
    for valid in (None, ragged, ragged[:1], scattered, torch.zeros(rows, 1, slots, dtype=torch.bool)):
        found = triton_decode.decode_attention(query, key, value, valid)
        assert found.shape == query.shape and found.dtype == query.dtype
        wanted = softmax_attention(query, key, value, valid)
        torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-6)


def test_decode_attention_reads_valid_slots_alone():
    """A view of a larger buffer, whose other slots are not even finite, and a query without order."""
    query = noise(2, 1, 3, 16).transpose(1, 2)
    buffer = torch.full((2, 2, 3, 150, 16), math.nan)
    valid = prefixes([70, 5], 140)
    for row, length in enumerate((70, 5)):
        buffer[:, row, :, :length] = noise(2, 3, length, 16, seed=row)
    found = triton_decode.decode_attention(query, buffer[0, :, :, :140], buffer[1, :, :, :140], valid)
    clean = buffer.nan_to_num(0.0)[:, :, :, :140]
    torch.testing.assert_close(found.double(), softmax_attention(query, *clean, valid), rtol=1e-5, atol=1e-6)


def test_decode_attention_in_bf16_adds_in_float32():
    query, key, value = (noise(2, 2, slots, 64, seed=slots).bfloat16() for slots in (1, 200, 201))
    found = triton_decode.decode_attention(query, key, value[:, :, :200], None)
    wanted = softmax_attention(query, key, value[:, :, :200], None)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, wanted.bfloat16(), rtol=1e-2, atol=1e-6)


def test_decode_attention_with_scores_that_overflow_an_exponential():
    query, key, value = (
        100 * noise(1, 1, 1, 16),
        100 * noise(1, 1, 70, 16, seed=1),
        noise(1, 1, 70, 16, seed=2),
    )
    found = triton_decode.decode_attention(query, key, value, None)
    torch.testing.assert_close(
        found.double(), softmax_attention(query, key, value, None), rtol=1e-4, atol=1e-5
    )


def exact(batch: int, tokens: int, seed: int) -> torch.Tensor:
    """Vectors whose cosines are multiples of 1/8 without any rounding, so that ties abound and are ties."""
    signs = torch.randint(2, (batch, tokens, 16), generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return signs * 2.0 ** torch.randint(
        -3, 4, (batch, tokens, 1), generator=torch.Generator().manual_seed(seed)
    )


@pytest.mark.parametrize("tokens", [2, 3, 8, 33, 150])
@pytest.mark.parametrize("protected", [0, 1, 2])
def test_matching_is_the_references(tokens, protected):
    most = tokens // 2
    for merges in sorted({0, 1, most // 2, most}):
        for metric in (
            exact(2, tokens + protected, seed=tokens),
            noise(2, tokens + protected, 5, seed=tokens),
            torch.zeros(1, tokens + protected, 4),
        ):
            found = triton_match.bipartite_match(metric, merges, protected)
            assert torch.equal(found, bipartite_match.reference(metric, merges, protected))


def test_matching_without_finite_values_and_without_order_in_memory():
    metric = exact(2, 40, seed=7)
    metric[0, 3, 2], metric[0, 4, 0], metric[1, 9] = math.nan, -math.inf, 0.0
    metric[1, 20, 5] = 3e38  # its square is not finite
    for given in (metric, metric.transpose(1, 2).contiguous().transpose(1, 2), metric.bfloat16()):
        found = triton_match.bipartite_match(given, 12, 1)
        assert torch.equal(found, bipartite_match.reference(given, 12, 1))


def merged_case(tokens: int, merges: int, width: int) -> tuple[torch.Tensor, ...]:
    size = torch.randint(1, 9, (2, tokens), generator=torch.Generator().manual_seed(1)).float()
    return noise(2, tokens, width), size, bipartite_match.reference(noise(2, tokens, 4, seed=2), merges, 0)


@pytest.mark.parametrize(
    ("tokens", "merges", "width"), [(2, 1, 1), (9, 4, 5), (16, 0, 8), (131, 40, 33)], ids=str
)
def test_merge_and_its_gradients(tokens, merges, width):
    x, size, assign = merged_case(tokens, merges, width)
    length = tokens - merges
    weights = noise(2, length, width, seed=3), noise(2, length, seed=4)
    found = []
    for run in (merge_triton, merge.reference):
        leaves = x.clone().requires_grad_(), size.clone().requires_grad_()
        outputs = run(*leaves, assign, length)
        total = sum((output * weight).sum() for output, weight in zip(outputs, weights, strict=True))
        found.append((*outputs, *torch.autograd.grad(total, leaves)))
    for one, other in zip(*found, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_merge_in_several_blocks_of_features(monkeypatch):
    monkeypatch.setattr(triton_merge, "_WIDTH", 16)
    x, size, assign = merged_case(12, 5, 40)
    x.requires_grad_()
    found = [run(x, size, assign, 7)[0] for run in (merge_triton, merge.reference)]
    torch.testing.assert_close(*found)
    torch.testing.assert_close(*(torch.autograd.grad(merged.square().sum(), x)[0] for merged in found))


def test_merge_of_expanded_and_turned_inputs_in_bf16():
    x, size, assign = merged_case(20, 8, 12)
    x = x.transpose(1, 2).contiguous().transpose(1, 2).bfloat16()
    size = size[:1].expand(2, -1)
    merged, total = merge_triton(x, size, assign, 12)
    wanted, wanted_total = merge.reference(x, size, assign, 12)
    assert merged.dtype == torch.bfloat16 and total.dtype == torch.float32
    torch.testing.assert_close(merged, wanted, rtol=1e-2, atol=1e-6)
    torch.testing.assert_close(total, wanted_total)


def test_merge_is_the_same_every_time_and_wants_no_second_derivative():
    x, size, assign = merged_case(20, 8, 12)
    x.requires_grad_()
    first, second = (merge_triton(x, size, assign, 12)[0] for _ in range(2))
    assert torch.equal(first, second)
    (grad,) = torch.autograd.grad(first.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


@pytest.mark.parametrize("bits", [1, 3, 9])
def test_half_distribution_and_its_gradient(bits):
    """Against the softmax over all codes in float64; logits from near 0 to far beyond an exponential's range."""
    logits = (noise(7, bits) * torch.logspace(-1, 3, 7).unsqueeze(1)).requires_grad_()
    found = triton_lfq.half_distribution(logits)
    wide = logits.detach().double().requires_grad_()
    codes = torch.arange(2**bits).unsqueeze(1) >> torch.arange(bits) & 1
    wanted = (wide @ codes.double().T).softmax(dim=-1)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-7)
    weight = noise(7, 2**bits, seed=1)
    (grad,) = torch.autograd.grad((found * weight).sum(), logits)
    (exact_grad,) = torch.autograd.grad((wanted * weight).sum(), wide)
    torch.testing.assert_close(grad.double(), exact_grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("shape", "temperature"), [((2, 5, 6), 1.0), ((33, 9), 0.01), ((3, 2), 0.1)])
def test_entropies_and_their_gradients(shape, temperature):
    found = []
    for run, dtype in [(lfq_entropies_triton, torch.float32), (lfq_entropies.reference, torch.float64)]:
        z = (noise(*shape) / 10).to(dtype).requires_grad_()
        sample, codebook = run(z, temperature)
        (grad,) = torch.autograd.grad(sample - 0.7 * codebook, z)
        found.append(tuple(value.double() for value in (sample, codebook, grad)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_entropies_reduce_the_mean_distribution():
    seen = []
    _, codebook = lfq_entropies_triton(noise(8, 4), 0.5, lambda mean: seen.append(mean) or mean / mean / 16)
    assert codebook.item() == pytest.approx(4 * math.log(2), rel=1e-5)
    assert seen[0].sum().item() == pytest.approx(1, rel=1e-5)
