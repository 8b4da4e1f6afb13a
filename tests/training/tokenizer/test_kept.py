"""Kept counts: their distributions and draws, and the recipes that have them."""

from __future__ import annotations

import itertools
import math

import pytest

from mergevq.config import override
from mergevq.errors import ConfigError
from mergevq.presets import presets
from mergevq.training.engine.schedules import rate_factor
from mergevq.training.tokenizer.config import KeepConfig
from mergevq.training.tokenizer.kept import KeepSampler, kept_counts
from mergevq.training.tokenizer.recipes import recipe


def test_exponential_is_eq_15_over_squares():
    counts, weights = kept_counts(KeepConfig(kind="exponential", least=36, most=100, rate=2.0), 36)
    assert counts == [36, 49, 64, 81, 100]
    for one, other in itertools.pairwise(weights):
        assert other / one == pytest.approx(math.exp(-2.0))
    assert sum(weights) == pytest.approx(1)


def test_gaussian_is_eq_16_around_the_preset():
    counts, weights = kept_counts(KeepConfig(kind="gaussian", least=121, most=225, deviation=0.5), 144)
    assert counts == [121, 144, 169, 196, 225]
    assert weights[0] == pytest.approx(weights[2])
    assert weights[3] / weights[1] == pytest.approx(math.exp(-8))


RELEASED = {
    "R": {49: 0.12, 64: 0.67, 81: 0.12, 100: 0.03, 121: 0.03, 144: 0.03},
    "G+R": {121: 0.12, 144: 0.67, 169: 0.12, 196: 0.03, 225: 0.03, 256: 0.03},
    "G": {225: 0.11, 256: 0.61, 289: 0.11, 324: 0.03, 361: 0.03, 400: 0.03, 441: 0.03, 484: 0.03, 529: 0.02},
}
"""Of 100 batches of the released code, by running its sampler."""


@pytest.mark.parametrize("name", [*RELEASED, "G-d96", "G+R-d32"])
def test_the_released_recipe_draws_what_the_released_code_draws(name):
    run, shares = recipe(name, "released"), RELEASED[name.split("-")[0]]
    counts, weights = kept_counts(run.keep, run.model.merge.keep)
    assert dict(zip(counts, weights, strict=True)) == shares
    sampler = KeepSampler(run.keep, run.model.merge.keep, seed=0)
    draws = [sampler.draw() for _ in range(4000)]
    for count, share in shares.items():
        assert draws.count(count) / 4000 == pytest.approx(share, abs=0.025)


def test_a_floor_is_added_before_weights_are_made_to_sum_to_one():
    plain = KeepConfig(kind="gaussian", least=49, most=144, deviation=0.5, centre=64, floor=0.05)
    counts, weights = kept_counts(plain, 36)
    assert counts[weights.index(max(weights))] == 64
    raw = [math.exp(-2) + 0.05, 1.05, math.exp(-2) + 0.05, *(math.exp(-(n**2) * 2) + 0.05 for n in (2, 3, 4))]
    assert weights == pytest.approx([each / sum(raw) for each in raw])
    assert kept_counts(override(plain, {"floor": 0.0, "centre": None}), 64) == kept_counts(
        KeepConfig(kind="gaussian", least=49, most=144, deviation=0.5), 64
    )


@pytest.mark.parametrize(
    ("name", "steps", "factors"),
    [
        ("G", 1000, {0: 1, 899: 1, 900: 0.1, 999: 0.1}),
        ("G+R", 2000, {0: 1, 1699: 1, 1700: 0.1, 1899: 0.1, 1900: 0.01, 1999: 0.01}),
        ("R", 2700, {0: 1, 2199: 1, 2200: 0.1, 2499: 0.1, 2500: 0.01, 2699: 0.01}),
        ("R", 100, {0: 1, 81: 1, 82: 0.1, 92: 0.1, 93: 0.01}),
    ],
)
def test_the_released_rate_falls_where_it_does_without_a_warm_up(name, steps, factors):
    optimizer = recipe(name, "released").optimizer
    for step, factor in factors.items():
        assert rate_factor(optimizer, step, steps) == pytest.approx(factor), step


def test_the_released_recipe_clips_where_the_released_code_does():
    clipped, free = ("R", "G-d96", "G+R-d96"), ("G", "G+R", "G-d32", "G+R-d32")
    assert {recipe(name, "released").optimizer.clip for name in clipped} == {5.0}
    assert {recipe(name, "released").optimizer.clip for name in free} == {None}


@pytest.mark.parametrize(
    ("key", "value"), [("centre", 0), ("floor", -0.1), ("floor", math.nan), ("draws", 0)]
)
def test_impossible_floors_and_centres_are_refused(key, value):
    with pytest.raises(ConfigError, match=f"keep.{key} is"):
        KeepConfig(**{key: value})


def test_sampler_follows_its_distribution_and_its_seed():
    config = KeepConfig(kind="gaussian", least=121, most=225, deviation=0.5)
    sampler = KeepSampler(config, 144, seed=0)
    draws = [sampler.draw() for _ in range(4000)]
    counts, weights = kept_counts(config, 144)
    for count, weight in zip(counts, weights, strict=True):
        assert draws.count(count) / 4000 == pytest.approx(weight, abs=0.03)
    again = KeepSampler(config, 144, seed=0)
    assert [again.draw() for _ in range(100)] == draws[:100]
    other = KeepSampler(config, 144, seed=1)
    assert [other.draw() for _ in range(100)] != draws[:100]


def test_sampler_resumes():
    sampler = KeepSampler(KeepConfig(kind="uniform", least=16, most=64), 32, seed=3)
    for _ in range(5):
        sampler.draw()
    state = sampler.state_dict()
    expected = [sampler.draw() for _ in range(20)]
    fresh = KeepSampler(KeepConfig(kind="uniform", least=16, most=64), 32, seed=9)
    fresh.load_state_dict(state)
    assert [fresh.draw() for _ in range(20)] == expected


@pytest.mark.parametrize("name", presets())
def test_every_preset_has_a_recipe_that_draws_reachable_counts(name):
    run = recipe(name)
    sampler = KeepSampler(run.keep, run.model.merge.keep, seed=0)
    assert max(sampler.counts) <= run.model.length
    assert run.model == recipe(name).model


@pytest.mark.parametrize("name", ["G", "G+R", "R"])
def test_paper_values_are_the_defaults(name):
    run = recipe(name)
    loss = run.loss
    assert (loss.reconstruction, loss.perceptual, loss.adversarial, loss.lecam) == (1.0, 0.7, 0.8, 0.01)
    assert (loss.commitment, loss.entropy, loss.reconstruction_kind) == (0.25, 0.1, "l2")
    assert (loss.source, loss.alignment) == {"G": (0.5, 0.1), "G+R": (0.5, 1.0), "R": (1.0, 1.0)}[name]
    assert (run.optimizer.betas, run.optimizer.rate, run.optimizer.ema) == ((0.5, 0.9), 1e-4, 0.999)
    released = recipe(name, "released").loss
    assert (released.reconstruction_kind, released.perceptual, released.adversarial) == ("l1", 1.0, 0.1)
    assert (released.adversarial_kind, released.adaptive) == ("non_saturating", False)


def test_impossible_counts_are_refused():
    with pytest.raises(ConfigError, match="no square between"):
        KeepConfig(kind="gaussian", least=26, most=35)
    with pytest.raises(ConfigError, match=r"keep\.least 9 is more than keep\.most 4"):
        KeepConfig(kind="uniform", least=9, most=4)


def test_a_distribution_without_probabilities_is_refused():
    with pytest.raises(ConfigError, match=r"keep\.rate leaves every count .* probability 0"):
        kept_counts(KeepConfig(kind="exponential", least=400, most=900, rate=100.0), 4)


def test_counts_that_cannot_be_reached_are_refused_before_the_run():
    run = recipe("tiny-32")
    with pytest.raises(ConfigError, match="the smallest count that can be reached is 4"):
        override(run, {"keep.least": 2})


def test_alignment_is_on_or_off_altogether():
    with pytest.raises(ConfigError, match=r"alignment\.kind is self and loss\.alignment 0"):
        override(recipe("small-64"), {"alignment.kind": "self"})
