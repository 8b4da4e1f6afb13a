"""Draws and filters: exact distributions by quadrature, and each filter by its definition."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mergevq.errors import UsageError
from mergevq.generation.guidance import check_guidance, guidance_at
from mergevq.generation.sampling import Sampling, chooser, draw, filtered, row_noise, row_seeds

values = st.lists(st.floats(-5, 5, width=32), min_size=2, max_size=9)


@given(values, st.floats(0.2, 3))
def test_draws_follow_the_softmax(logits: list[float], temperature: float) -> None:
    """The share of evenly spaced numbers that lead to an entry is its probability."""
    many = 2000
    rows = torch.tensor(logits).expand(many, -1)
    uniform = (torch.arange(many) + 0.5) / many
    drawn = draw(rows, uniform, Sampling(temperature=temperature))
    share = torch.bincount(drawn, minlength=len(logits)) / many
    expected = (torch.tensor(logits, dtype=torch.float64) / temperature).softmax(dim=0)
    assert (share - expected).abs().max() <= 1.5 / many


@given(values, st.integers(1, 9))
def test_top_k_keeps_the_k_likeliest_and_their_equals(logits: list[float], top_k: int) -> None:
    row = torch.tensor(logits)
    kept = filtered(row[None], Sampling(top_k=top_k))[0].isfinite()
    threshold = sorted(logits, reverse=True)[min(top_k, len(logits)) - 1]
    assert kept.tolist() == (row >= torch.tensor(threshold)).tolist()


@given(values, st.floats(0.05, 0.95))
def test_top_p_keeps_the_fewest_that_reach_it(logits: list[float], top_p: float) -> None:
    probabilities = torch.tensor(logits).softmax(dim=0)
    kept = filtered(torch.tensor(logits)[None], Sampling(top_p=top_p))[0].isfinite()
    held = probabilities[kept]
    assert held.sum() >= top_p - 1e-5
    assert held.sum() - held.min() < top_p + 1e-5
    assert kept.all() or held.min() >= probabilities[~kept].max() - 1e-7


def test_a_number_next_to_one_never_leads_to_an_impossible_entry() -> None:
    logits = torch.full((1, 512), float("-inf"))
    logits[0, 3:7] = torch.randn(4, generator=torch.Generator().manual_seed(0))
    for uniform in (0.0, 1 - 2**-24):
        assert 3 <= int(draw(logits, torch.tensor([uniform]), Sampling())) <= 6


def test_temperature_zero_takes_the_likeliest() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0]])
    assert draw(logits, torch.tensor([0.999]), Sampling(temperature=0)).item() == 1


def test_guidance_extrapolates_from_the_half_without_class() -> None:
    given_, free = torch.tensor([[1.0, 0.0, 0.5]]), torch.tensor([[3.0, 0.0, 0.0]])
    choose = chooser(torch.zeros(1, 1), Sampling(temperature=0), 2.0)  # u + 2 (c - u) = [-1, 0, 1]
    assert choose(torch.cat([given_, free]), 0).tolist() == [2, 2]


def test_the_noise_of_a_row_is_that_of_its_seed() -> None:
    together = row_noise([4, 9], 3, 2)
    assert torch.equal(together[1:], row_noise([9], 3, 2))
    assert not torch.equal(together[0], together[1])
    before = torch.get_rng_state()
    row_noise([1], 2)
    assert torch.equal(before, torch.get_rng_state())


@given(st.integers(0, 2**64 - 1), st.integers(0, 63))
def test_every_bit_of_a_seed_counts(seed: int, bit: int) -> None:
    """PyTorch's own generator on the CPU drops half of them."""
    noise = row_noise([seed, seed ^ (1 << bit)], 4)
    assert not torch.equal(noise[0], noise[1])
    assert bool(((noise >= 0) & (noise < 1)).all())


def test_seeds_count_up_or_are_given() -> None:
    assert row_seeds(5, 3) == [5, 6, 7]
    assert row_seeds([8, 2], 2) == [8, 2]
    with pytest.raises(UsageError, match="2 seeds for 3 labels"):
        row_seeds([8, 2], 3)


def test_guidance_schedules() -> None:
    assert guidance_at(1.0, "linear", 0.5) is None
    assert guidance_at(3.0, "constant", 0.5) == 3.0
    assert [guidance_at(3.0, "linear", done) for done in (0.0, 0.5, 1.0)] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": -1.0}, {"temperature": float("nan")}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.5}],
)
def test_settings_that_mean_nothing(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Sampling(**wrong)  # type: ignore[arg-type]  # on purpose


def test_guidance_that_means_nothing() -> None:
    with pytest.raises(UsageError, match="linear"):
        check_guidance(2.0, "linaer")
    with pytest.raises(UsageError, match="guidance is nan"):
        check_guidance(float("nan"), "linear")
