from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mergevq.errors import UsageError
from mergevq.models.tokenizer.merge import fewest, follow, merge_schedule, scaled_keep

KINDS = ["square", "linear", "constant"]
kinds = st.sampled_from(KINDS)


@st.composite
def reachable(draw: st.DrawFn) -> tuple[int, int, int]:
    length, blocks = draw(st.integers(1, 1100)), draw(st.integers(1, 14))
    return length, draw(st.integers(fewest(length, blocks), length)), blocks


@given(reachable(), kinds)
def test_plan_reaches_exactly_the_kept_count(case, kind):
    length, keep, blocks = case
    plan = merge_schedule(length, keep, blocks, kind)
    assert len(plan) == blocks and sum(plan) == length - keep
    present = length
    for merges in plan:
        assert 0 <= merges <= present // 2
        present -= merges


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [1, 2, 63, 64, 65])
def test_every_count_down_to_the_fewest_is_reached(kind, length):
    for blocks in (1, 3, 6, 12):
        for keep in range(fewest(length, blocks), length + 1):
            assert sum(merge_schedule(length, keep, blocks, kind)) == length - keep


@given(st.integers(1, 5000), st.integers(0, 13))
def test_fewest_is_what_halving_reaches(length, blocks):
    present = length
    for _ in range(blocks):
        present -= present // 2
    assert fewest(length, blocks) == present


@given(reachable(), kinds)
def test_without_a_cap_it_is_largest_remainder_rounding(case, kind):
    length, keep, blocks = case
    weights = [{"square": n * n, "linear": n, "constant": 1}[kind] for n in range(blocks, 0, -1)]
    exact = [Fraction((length - keep) * weight, sum(weights)) for weight in weights]
    rounded = [int(share) for share in exact]
    order = sorted(range(blocks), key=lambda block: (rounded[block] - exact[block], block))
    for block in order[: length - keep - sum(rounded)]:
        rounded[block] += 1
    present = length
    for merges in rounded:
        if merges > present // 2:
            return  # a cap binds: the other tests hold
        present -= merges
    assert merge_schedule(length, keep, blocks, kind) == rounded


@pytest.mark.parametrize(
    ("length", "keep", "plan"),
    [
        (1024, 256, [170, 143, 118, 96, 76, 58, 42, 29, 19, 11, 5, 1]),
        (256, 144, [25, 21, 17, 14, 11, 8, 6, 4, 3, 2, 1, 0]),
        (256, 36, [49, 41, 34, 27, 22, 17, 12, 9, 5, 3, 1, 0]),
    ],
)
def test_the_papers_cases(length, keep, plan):
    got = merge_schedule(length, keep, 12)
    assert got == plan
    assert got == sorted(got, reverse=True) and sum(got) == length - keep


@pytest.mark.parametrize("kind", ["square", "linear", "constant"])
@pytest.mark.parametrize(("length", "keep"), [(1024, 256), (256, 144), (256, 36), (64, 32), (256, 128)])
def test_no_block_of_a_preset_merges_more_than_the_one_before(kind, length, keep):
    plan = merge_schedule(length, keep, 12, kind)
    assert plan == sorted(plan, reverse=True)


def test_what_the_cap_takes_goes_to_the_other_blocks():
    assert merge_schedule(16, 2, 3, "square") == [8, 4, 2]
    assert merge_schedule(64, 8, 4, "constant") == [14, 18, 16, 8]  # 14 of the last 22 would be too many
    assert merge_schedule(40, 18, 2, "square") == [18, 4]
    assert merge_schedule(40, 12, 2, "square") == [20, 8]  # 22 of the first 40 would be too many


@pytest.mark.parametrize(
    ("length", "keep", "blocks", "nearest"),
    [(64, 0, 4, 4), (64, -5, 4, 4), (64, 65, 4, 64), (64, 3, 4, 4), (65, 4, 4, 5), (1024, 63, 4, 64)],
)
@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_reached_names_the_nearest(length, keep, blocks, nearest, kind):
    with pytest.raises(UsageError, match=f"cannot keep {keep} of {length} .* reached is {nearest}$"):
        merge_schedule(length, keep, blocks, kind)
    merge_schedule(length, nearest, blocks, kind)


def test_an_unknown_kind_names_the_nearest():
    with pytest.raises(UsageError, match="unknown merge schedule 'sqare'; did you mean 'square'"):
        merge_schedule(64, 32, 4, "sqare")  # type: ignore[arg-type]


@given(st.integers(1, 1024), st.integers(1, 2000))
def test_scaled_keep_holds_the_share(keep, actual):
    kept = scaled_keep(keep, 1024, actual)
    assert 1 <= kept <= actual
    assert kept == 1 or abs(Fraction(kept, actual) - Fraction(keep, 1024)) <= Fraction(1, 2 * actual)
    assert scaled_keep(keep, 1024, 1024) == keep


def test_follow_composes_merges():
    first, second = torch.tensor([[0, 1, 0, 2, 1]]), torch.tensor([[0, 1, 0]])
    assert follow(None, first) is first
    assert follow(first, second).tolist() == [[0, 1, 0, 0, 1]]
