"""The operators of generators against float64 definitions."""

from __future__ import annotations

import math

import pytest
import torch

from mergevq.backends import decode_attention, rms_norm, rope, swiglu


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_rms_norm_divides_by_the_root_mean_square() -> None:
    x, weight = random(3, 7), random(7, seed=1)
    expected = x.double() / (x.double().square().mean(dim=-1, keepdim=True) + 1e-5).sqrt() * weight
    torch.testing.assert_close(rms_norm(x, weight, 1e-5), expected.float())


def test_rms_norm_takes_its_statistics_in_float32() -> None:
    """Squares of 300 overflow float16, whose largest number is 65504."""
    x = torch.full((1, 64), 300.0, dtype=torch.float16)
    found = rms_norm(x, torch.ones(64), 1e-5)
    assert found.dtype == torch.float16
    torch.testing.assert_close(found, torch.ones(1, 64, dtype=torch.float16))


def test_rope_turns_pairs_as_complex_numbers() -> None:
    x, angles = random(2, 3, 5, 8), random(1, 5, 4, seed=1)
    expected = torch.view_as_complex(x.unflatten(-1, (-1, 2)).double()) * torch.polar(
        torch.ones(1, 1, 5, 4, dtype=torch.float64), angles.unsqueeze(1).double()
    )
    found = rope(x, angles.cos(), angles.sin())
    torch.testing.assert_close(found, torch.view_as_real(expected).flatten(-2).float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rope_keeps_lengths_and_dtype(dtype: torch.dtype) -> None:
    x = random(1, 2, 3, 8).to(dtype)
    angles = random(1, 3, 4, seed=1)
    found = rope(x, angles.cos(), angles.sin())
    assert found.dtype == dtype
    torch.testing.assert_close(found.float().norm(dim=-1), x.float().norm(dim=-1), rtol=1e-2, atol=1e-2)


def test_swiglu() -> None:
    gate, up = random(4, 6), random(4, 6, seed=1)
    expected = gate.double() / (1 + (-gate.double()).exp()) * up
    torch.testing.assert_close(swiglu(gate, up), expected.float())


def test_decode_attention_ignores_what_is_not_valid() -> None:
    """Rows of different lengths, in a view of a larger buffer whose rest is not even finite."""
    query, buffer = random(2, 3, 1, 8), torch.full((2, 2, 3, 9, 8), float("nan"))
    buffer[..., :6, :] = random(2, 2, 3, 6, 8, seed=1)
    lengths = [4, 6]
    valid = torch.arange(6) < torch.tensor(lengths).unsqueeze(1)
    found = decode_attention(query, buffer[0, ..., :6, :], buffer[1, ..., :6, :], valid.unsqueeze(1))
    for row, length in enumerate(lengths):
        key, value = buffer[:, row, :, :length].double()
        weights = (query[row].double() @ key.transpose(1, 2) / math.sqrt(8)).softmax(dim=-1)
        torch.testing.assert_close(found[row], (weights @ value).float())
