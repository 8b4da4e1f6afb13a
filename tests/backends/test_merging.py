from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mergevq.backends import bipartite_match, merge, recover
from mergevq.models.tokenizer.merge import follow

MATCHERS = [bipartite_match.reference, *(one.run for one in bipartite_match.implementations("cpu"))]
MERGERS = [merge.reference, *(one.run for one in merge.implementations("cpu"))]
matchers = pytest.mark.parametrize("match", MATCHERS, ids=lambda run: run.__name__)
mergers = pytest.mark.parametrize("join", MERGERS, ids=lambda run: run.__name__)


def cosine(a: list[float], b: list[float]) -> float:
    norms = math.hypot(*a) * math.hypot(*b)
    return sum(x * y for x, y in zip(a, b, strict=True)) / norms if norms else 0.0


def match_by_loops(metric: list[list[float]], merges: int, protected: int) -> tuple[list[int], float]:
    """The assignment in float64, and the narrowest gap between two different cosines that were compared."""
    tokens = range(protected, len(metric))
    evens, odds = tokens[::2], tokens[1::2]
    proposals, compared = [], []
    for even in evens:
        scores = [cosine(metric[even], metric[odd]) for odd in odds]
        best = max(scores)
        compared.append(sorted(scores))
        proposals.append((-best, even, odds[scores.index(best)]))
    compared.append(sorted(score for score, _, _ in proposals))
    cluster = {token: [token] for token in range(len(metric))}
    for _, even, odd in sorted(proposals)[:merges]:
        cluster[odd].append(even)
        del cluster[even]
    ordered = sorted((sorted(members) for members in cluster.values()), key=lambda members: members[0])
    slot = {token: number for number, members in enumerate(ordered) for token in members}
    gaps = [b - a for scores in compared for a, b in itertools.pairwise(scores) if b > a]
    return [slot[token] for token in range(len(metric))], min(gaps, default=1.0)


def lengths(draw: st.DrawFn) -> tuple[int, int, int]:
    protected = draw(st.integers(0, 2))
    tokens = protected + draw(st.integers(2, 11))
    return tokens, protected, draw(st.integers(0, (tokens - protected) // 2))


@st.composite
def exact_metrics(draw: st.DrawFn) -> tuple[list[list[float]], int, int]:
    """Vectors whose cosines are exact in float32, so that ties are ties: axes, signs of a cube, zero."""
    tokens, protected, merges = lengths(draw)
    axis = st.builds(
        lambda i, s: [s if j == i else 0.0 for j in range(4)], st.integers(0, 3), st.sampled_from([-2.0, 1.0])
    )
    corner = st.lists(st.sampled_from([-1.0, 1.0]), min_size=4, max_size=4)
    vector = st.one_of(axis, corner, st.just([0.0] * 4))
    return draw(st.lists(vector, min_size=tokens, max_size=tokens)), merges, protected


@st.composite
def random_metrics(draw: st.DrawFn) -> tuple[list[list[float]], int, int]:
    tokens, protected, merges = lengths(draw)
    number = st.floats(-4, 4, width=32).filter(lambda value: value == 0 or abs(value) > 1e-3)
    vector = st.lists(number, min_size=3, max_size=3)
    return draw(st.lists(vector, min_size=tokens, max_size=tokens)), merges, protected


@matchers
@given(exact_metrics())
@settings(deadline=None, max_examples=150)
def test_match_agrees_with_loops_on_ties(match, case):
    metric, merges, protected = case
    wanted, _ = match_by_loops(metric, merges, protected)
    assert match(torch.tensor([metric]), merges, protected).tolist() == [wanted]


@matchers
@given(random_metrics())
@settings(deadline=None, max_examples=100)
def test_match_agrees_with_loops_on_any_vectors(match, case):
    metric, merges, protected = case
    wanted, gap = match_by_loops(metric, merges, protected)
    assume(gap > 1e-5)
    assert match(torch.tensor([metric]), merges, protected).tolist() == [wanted]


@matchers
@given(random_metrics())
@settings(deadline=None, max_examples=60)
def test_match_gives_slots_in_raster_order(match, case):
    metric, merges, protected = case
    slots = match(torch.tensor([metric]), merges, protected)[0].tolist()
    assert sorted(set(slots)) == list(range(len(metric) - merges))
    seen = -1
    for slot in slots:  # a new slot is always the next one
        assert slot <= seen + 1
        seen = max(seen, slot)
    assert slots[:protected] == list(range(protected))
    for slot in range(len(metric) - merges):
        members = [token for token, own in enumerate(slots) if own == slot]
        assert sum((token - protected) % 2 for token in members) == 1 or len(members) == 1
        assert len(members) == 1 or min(members) >= protected


@matchers
def test_no_merges_is_the_identity(match):
    assert match(torch.randn(2, 5, 3), 0, 1).tolist() == [[0, 1, 2, 3, 4]] * 2


@matchers
@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_equal_tokens_merge_from_the_left(match, fill):
    # The first even tokens all join the first odd one.
    assert match(torch.full((1, 7, 4), fill), 2, 1).tolist() == [[0, 1, 1, 1, 2, 3, 4]]
    assert match(torch.full((1, 6, 4), fill), 3, 0).tolist() == [[0, 0, 0, 1, 0, 2]]


@matchers
def test_rows_of_a_batch_do_not_see_each_other(match):
    metric = torch.randn(3, 21, 8)
    together = match(metric, 7, 1)
    for row in range(3):
        assert torch.equal(match(metric[row : row + 1], 7, 1), together[row : row + 1])


@matchers
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_vector_that_is_not_finite_counts_as_zero(match, bad):
    metric = torch.randn(1, 9, 4)
    zero = metric.clone()
    metric[0, 4], zero[0, 4] = bad, 0.0
    assert torch.equal(match(metric, 3, 1), match(zero, 3, 1))


def merged_by_loops(x: torch.Tensor, size: torch.Tensor, assign: torch.Tensor, length: int):
    x, size = x.double(), size.double()
    merged = torch.zeros(len(x), length, x.shape[2], dtype=torch.float64)
    total = torch.zeros(len(x), length, dtype=torch.float64)
    for row in range(len(x)):
        for token, slot in enumerate(assign[row].tolist()):
            merged[row, slot] += x[row, token] * size[row, token]
            total[row, slot] += size[row, token]
    return merged / total.unsqueeze(-1), total


@mergers
def test_merge_is_the_size_weighted_mean(join):
    x, size = torch.randn(3, 15, 4), torch.randint(1, 30, (3, 15)).float()
    assign = bipartite_match.reference(torch.randn(3, 15, 4), 6, 1)
    merged, total = join(x, size, assign, 9)
    wanted, wanted_total = merged_by_loops(x, size, assign, 9)
    torch.testing.assert_close(merged.double(), wanted, rtol=1e-6, atol=1e-6)
    assert torch.equal(total.double(), wanted_total)


@mergers
def test_merge_of_nothing_is_exact(join):
    x, size = torch.randn(2, 5, 3), torch.ones(2, 5)
    merged, total = join(x, size, torch.arange(5).expand(2, -1), 5)
    assert torch.equal(merged, x) and torch.equal(total, size)


@mergers
def test_merging_again_and_again_is_one_weighted_mean(join):
    """After several rounds each token is the mean of all positions that it covers: S x / s."""
    positions = 32
    first = torch.randn(2, positions, 5, dtype=torch.float32)
    x, size, source = first, torch.ones(2, positions), None
    for merges in (12, 7, 5, 3):
        assign = bipartite_match.reference(x, merges)
        x, size = join(x, size, assign, x.shape[1] - merges)
        source = follow(source, assign)
    kept = x.shape[1]
    assert kept == 5 and torch.equal(size.sum(dim=1), torch.full((2,), float(positions)))
    for row in range(2):
        assert torch.equal(torch.bincount(source[row], minlength=kept).float(), size[row])
    wanted, _ = merged_by_loops(first, torch.ones(2, positions), source, kept)
    torch.testing.assert_close(x.double(), wanted, rtol=1e-5, atol=1e-5)


@mergers
def test_merge_gradient_reaches_every_token_by_its_share(join):
    x = torch.randn(1, 4, 2, requires_grad=True)
    size = torch.tensor([[1.0, 3.0, 2.0, 2.0]])
    merged, _ = join(x, size, torch.tensor([[0, 0, 1, 1]]), 2)
    merged.sum().backward()
    assert x.grad[0, :, 0].tolist() == [0.25, 0.75, 0.5, 0.5]


@mergers
def test_merge_keeps_precision_in_bf16(join):
    x = torch.ones(1, 513, 1, dtype=torch.bfloat16)
    merged, total = join(x, torch.ones(1, 513), torch.zeros(1, 513, dtype=torch.long), 1)
    assert merged.dtype == torch.bfloat16 and merged.item() == 1 and total.item() == 513


def test_recover_gives_each_position_its_token():
    tokens, source = torch.randn(2, 3, 4), torch.randint(3, (2, 9))
    painted = recover(tokens, source)
    for row in range(2):
        for position in range(9):
            assert torch.equal(painted[row, position], tokens[row, source[row, position]])
    dense = torch.nn.functional.one_hot(source, 3).float()  # S^T
    torch.testing.assert_close(painted, dense @ tokens)
