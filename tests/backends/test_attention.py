from __future__ import annotations

import pytest
import torch

from mergevq.backends import sized_attention


def inputs(dtype: torch.dtype):
    query, key, value = (torch.randn(2, 3, 6, 4, dtype=dtype, requires_grad=True) for _ in range(3))
    return query, key, value, torch.tensor([[1, 5, 2, 1, 3, 1], [2, 2, 1, 7, 1, 1]])


def repeated(query, key, value, sizes):
    """Plain softmax attention in which every key stands there as often as its size says."""
    rows = []
    for row, counts in enumerate(sizes):
        keys = key[row].repeat_interleave(counts, dim=1)
        values = value[row].repeat_interleave(counts, dim=1)
        scores = query[row] @ keys.transpose(1, 2) / query.shape[-1] ** 0.5
        rows.append(scores.softmax(dim=-1) @ values)
    return torch.stack(rows)


def test_a_size_equals_that_many_copies_of_the_key():
    query, key, value, sizes = inputs(torch.float64)
    got = sized_attention(query, key, value, sizes.double().log())
    wanted = repeated(query, key, value, sizes)
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)
    weight = torch.randn_like(got)
    for one, other in zip(
        torch.autograd.grad((got * weight).sum(), (query, key, value)),
        torch.autograd.grad((wanted * weight).sum(), (query, key, value)),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


def test_no_sizes_are_sizes_of_one():
    query, key, value, sizes = inputs(torch.float64)
    plain = sized_attention(query, key, value, None)
    torch.testing.assert_close(plain, sized_attention(query, key, value, torch.ones(2, 6).log()))
    assert (plain - sized_attention(query, key, value, sizes.double().log())).abs().max() > 0.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_output_has_the_dtype_of_the_query(dtype):
    query, key, value, sizes = inputs(dtype)
    assert sized_attention(query, key, value, sizes.float().log()).dtype == dtype


def test_runs_under_autocast_with_float32_inputs():
    query, key, value, sizes = inputs(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = sized_attention(query, key, value, sizes.float().log())
    torch.testing.assert_close(mixed.float(), repeated(query, key, value, sizes), rtol=0.05, atol=0.05)
