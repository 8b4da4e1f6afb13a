"""The order of the data is a pure function of (seed, batch number)."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mergevq.data.images.sampler import Draw, EvalSampler, StepSampler, random_generator
from mergevq.errors import UsageError

_shape = {
    "length": st.integers(1, 60),
    "batch_size": st.integers(1, 17),
    "seed": st.integers(-(2**70), 2**70),
    "world": st.integers(1, 4),
}


@settings(deadline=None, max_examples=60)
@given(start=st.integers(0, 30), **_shape)
def test_resuming_yields_the_rest(start: int, length: int, batch_size: int, seed: int, world: int) -> None:
    rank = start % world
    whole = list(StepSampler(length, batch_size, seed, rank, world, steps=start + 5))
    assert list(StepSampler(length, batch_size, seed, rank, world, start, start + 5)) == whole[start:]


@settings(deadline=None, max_examples=60)
@given(**_shape)
def test_ranks_show_every_image_once_an_epoch(length: int, batch_size: int, seed: int, world: int) -> None:
    samplers = [StepSampler(length, batch_size, seed, rank, world) for rank in range(world)]
    steps = -(-3 * length // (batch_size * world))
    batches = [list(islice(sampler, steps)) for sampler in samplers]
    draws = [draw for step in zip(*batches, strict=True) for batch in step for draw in batch]
    for epoch in range(3):
        seen = [draw.index for draw in draws[epoch * length : (epoch + 1) * length]]
        assert sorted(seen) == list(range(length))


@settings(deadline=None, max_examples=30)
@given(**_shape)
def test_keys_never_repeat(length: int, batch_size: int, seed: int, world: int) -> None:
    draws = [
        draw
        for rank in range(world)
        for batch in StepSampler(length, batch_size, seed, rank, world, steps=12)
        for draw in batch
    ]
    assert len({draw.key for draw in draws}) == len(draws)
    assert all(0 <= draw.key < 2**128 for draw in draws)


@settings(deadline=None, max_examples=30)
@given(length=st.integers(1, 40), batch_size=st.integers(1, 9), seed=st.integers(0, 2**64 - 1))
def test_world_size_does_not_change_the_global_order(length: int, batch_size: int, seed: int) -> None:
    together = list(StepSampler(length, 2 * batch_size, seed, steps=6))
    parts = [list(StepSampler(length, batch_size, seed, rank, 2, steps=6)) for rank in (0, 1)]
    assert together == [first + second for first, second in zip(*parts, strict=True)]


def test_epochs_and_seeds_are_shuffled_differently() -> None:
    first, second = (batch for batch in StepSampler(50, 50, seed=0, steps=2))
    other = next(iter(StepSampler(50, 50, seed=1)))
    orders = [tuple(draw.index for draw in batch) for batch in (first, second, other)]
    assert len({*orders, tuple(range(50))}) == 4


def test_every_order_is_equally_likely() -> None:
    counts: dict[tuple[int, ...], int] = {}
    sampler = StepSampler(3, 3, seed=0)
    for batch in islice(sampler, 3000):
        order = tuple(draw.index for draw in batch)
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 6
    assert max(abs(count - 500) for count in counts.values()) < 100  # five standard deviations


def test_a_second_iteration_starts_over() -> None:
    sampler = StepSampler(7, 3, seed=0, start=2, steps=6)
    assert list(sampler) == list(sampler)


def test_length() -> None:
    assert len(StepSampler(10, 3, 0, start=4, steps=9)) == 5
    assert (
        len(StepSampler(10, 3, 0, start=9, steps=9))
        == len(list(StepSampler(10, 3, 0, start=9, steps=9)))
        == 0
    )
    with pytest.raises(TypeError, match="endless"):
        len(StepSampler(10, 3, 0))


@settings(deadline=None, max_examples=60)
@given(length=st.integers(1, 60), batch_size=st.integers(1, 17), world=st.integers(1, 5))
def test_evaluation_sees_every_image_once(length: int, batch_size: int, world: int) -> None:
    seen = []
    for rank in range(world):
        sampler = EvalSampler(length, batch_size, rank, world)
        batches = list(sampler)
        assert len(batches) == len(sampler)
        assert all(1 <= len(batch) <= batch_size for batch in batches)
        seen += [draw.index for batch in batches for draw in batch]
    assert sorted(seen) == list(range(length))


def test_evaluation_order_is_the_datas() -> None:
    assert [[draw.index for draw in batch] for batch in EvalSampler(5, 2)] == [[0, 1], [2, 3], [4]]


def test_generators_follow_their_key() -> None:
    first, again, other = (
        random_generator(key).integers(2**62, size=4) for key in (2**100, 2**100, 2**100 + 1)
    )
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert Draw(1, 2) == Draw(1, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 1, 0), "0 images"),
        ((5, 0, 0), "batch_size is 0"),
        ((5, 1, 0, 2, 2), "rank 2"),
        ((5, 1, 0, 0, 1, -1), "start is -1"),
    ],
)
def test_impossible_counts(arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        StepSampler(*arguments)
    if len(arguments) < 6:
        with pytest.raises(UsageError, match=message):
            EvalSampler(arguments[0], arguments[1], *arguments[3:])


@settings(deadline=None)
@given(
    length=st.integers(1, 60), limit=st.integers(1, 80), world=st.integers(1, 4), batch_size=st.integers(1, 9)
)
def test_a_limited_evaluation_is_evenly_spaced(length: int, limit: int, world: int, batch_size: int) -> None:
    ranks = [EvalSampler(length, batch_size, rank, world, limit) for rank in range(world)]
    seen = sorted(draw.index for rank in ranks for batch in rank for draw in batch)
    assert len(seen) == len(set(seen)) == min(length, limit) and seen[0] == 0
    steps = [after - before for before, after in zip(seen, [*seen[1:], length], strict=True)]
    assert max(steps) - min(steps) <= 1


def test_a_limit_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="limit is 0"):
        EvalSampler(5, 1, limit=0)
