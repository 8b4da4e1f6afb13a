"""Bipartite matching in four Triton kernels, with no (even, odd) matrix in memory.

0. The vectors over their norms.
1. For a block of even tokens, the cosines with one block of odd tokens after another; the best is kept.
2. The rank of each proposal, by counting those ahead; the leader of an odd token is the first that joins it.
3. The slot of each token: how many leaders stand before its own.

Every decision is the reference's, ties included, for the same cosines; these are full float32 whatever
the settings of matrix products, so that a near-tie may fall otherwise where those allow TF32.

Legend: B batch, T tokens; of the T' that take part, A are even and O odd.
"""

# mypy: disable-error-code="no-untyped-def"
# Kernels are in Triton's language, whose types Python does not know.

from __future__ import annotations

import torch
import triton
import triton.language as tl

_EPS = 1e-6
_TILE = 64
"""Tokens in each direction of a tile of cosines."""

_DEPTH = 16
"""Features of a tile that are multiplied at a time: without tensor cores each takes registers."""

_COUNT = 64
"""Tokens in each direction of a tile of comparisons."""


@triton.jit
def _normalise(
    metric, units, tokens, width, row_stride, token_stride, feature_stride, eps,
    TILE: tl.constexpr, FEATURES: tl.constexpr,
):  # fmt: skip
    """Vectors over their norms, widened with zeros; zero where a value is not finite."""
    row = tl.program_id(1).to(tl.int64)
    token = tl.program_id(0) * TILE + tl.arange(0, TILE)
    feature = tl.arange(0, FEATURES)
    at = metric + row * row_stride + token[:, None] * token_stride + feature[None, :] * feature_stride
    x = tl.load(at, mask=(token < tokens)[:, None] & (feature < width)[None, :], other=0.0).to(tl.float32)
    norm = tl.sqrt_rn(tl.sum(x * x, axis=1))
    norm = tl.where(norm == norm, tl.maximum(norm, eps), float("inf"))
    unit = tl.div_rn(x, tl.broadcast_to(norm[:, None], x.shape))
    unit = tl.where(unit == unit, unit, 0.0)
    target = units + (row * tokens + token[:, None]) * FEATURES + feature[None, :]
    tl.store(target, unit, mask=(token < tokens)[:, None])


@triton.jit
def _propose(
    units, best, partner, leader, tokens, TILE: tl.constexpr, DEPTH: tl.constexpr, FEATURES: tl.constexpr
):
    """Each even token's most similar odd token, as its number among the odd; odd tokens begin as their leaders."""
    row = tl.program_id(1).to(tl.int64)
    evens, odds = (tokens + 1) // 2, tokens // 2
    a = tl.program_id(0) * TILE + tl.arange(0, TILE)
    depth = tl.arange(0, DEPTH)
    base = units + row * tokens * FEATURES
    even_at = base + (2 * a)[:, None] * FEATURES + depth[None, :]
    top = tl.full((TILE,), float("-inf"), tl.float32)
    chosen = tl.zeros((TILE,), tl.int32)
    for start in range(0, odds, TILE):
        o = start + tl.arange(0, TILE)
        odd_at = base + (2 * o + 1)[None, :] * FEATURES + depth[:, None]
        cosine = tl.zeros((TILE, TILE), tl.float32)
        for feature in range(0, FEATURES, DEPTH):
            even = tl.load(even_at + feature, mask=(a < evens)[:, None], other=0.0)
            odd = tl.load(odd_at + feature, mask=(o < odds)[None, :], other=0.0)
            cosine = tl.dot(even, odd, cosine, input_precision="ieee")
        cosine = tl.where((o < odds)[None, :], cosine, float("-inf"))
        # The first of equal ones, within a tile and between them.
        highest = tl.max(cosine, axis=1)
        number = tl.min(tl.where(cosine == highest[:, None], o[None, :], odds), axis=1)
        chosen = tl.where(highest > top, number, chosen)
        top = tl.maximum(top, highest)
    tl.store(best + row * evens + a, top, mask=a < evens)
    tl.store(partner + row * evens + a, chosen, mask=a < evens)
    tl.store(leader + row * odds + a, 2 * a + 1, mask=a < odds)


@triton.jit
def _join(best, partner, leader, evens, odds, merges, COUNT: tl.constexpr):
    """Carries out the first proposals; the partner of an even token that stays alone becomes -1."""
    row = tl.program_id(1).to(tl.int64)
    a = tl.program_id(0) * COUNT + tl.arange(0, COUNT)
    mine = tl.load(best + row * evens + a, mask=a < evens, other=float("-inf"))
    ahead = tl.zeros((COUNT,), tl.int32)
    for start in range(0, evens, COUNT):
        b = start + tl.arange(0, COUNT)
        other = tl.load(best + row * evens + b, mask=b < evens, other=float("-inf"))
        level = (other[None, :] == mine[:, None]) & (b[None, :] < a[:, None])
        ahead += tl.sum(((other[None, :] > mine[:, None]) | level).to(tl.int32), axis=1)
    joins = (ahead < merges) & (a < evens)
    chosen = tl.load(partner + row * evens + a, mask=joins, other=0)
    tl.atomic_min(leader + row * odds + chosen, 2 * a, mask=joins)
    tl.store(partner + row * evens + a, -1, mask=(a < evens) & (ahead >= merges))


@triton.jit
def _leader_of(position, partner, leader, mask):
    """The first member of a token's cluster, given the tables of one row."""
    even = position % 2 == 0
    joined = tl.load(partner + position // 2, mask=mask & even, other=-1)
    led = tl.where(even, joined, position // 2)
    found = tl.load(leader + led, mask=mask & (led >= 0), other=0)
    return tl.where(led >= 0, found, position)


@triton.jit
def _number(partner, leader, assign, tokens, protected, COUNT: tl.constexpr):
    """Slots in the order of the leaders, after the protected tokens'."""
    row = tl.program_id(1).to(tl.int64)
    partner += row * ((tokens + 1) // 2)
    leader += row * (tokens // 2)
    place = tl.program_id(0) * COUNT + tl.arange(0, COUNT)
    position = place - protected
    inside = place < tokens + protected
    mine = _leader_of(position, partner, leader, inside & (position >= 0))
    before = tl.zeros((COUNT,), tl.int32)
    for start in range(0, tokens, COUNT):
        other = start + tl.arange(0, COUNT)
        leads = (_leader_of(other, partner, leader, other < tokens) == other) & (other < tokens)
        before += tl.sum((leads[None, :] & (other[None, :] < mine[:, None])).to(tl.int32), axis=1)
    slot = tl.where(position < 0, place, before + protected)
    tl.store(assign + row * (tokens + protected) + place, slot.to(tl.int64), mask=inside)


def bipartite_match(metric: torch.Tensor, merges: int, protected: int) -> torch.Tensor:
    """The operator: (B, T, E) to (B, T) int64."""
    batch, total, width = metric.shape
    taking_part = metric.detach()[:, protected:]
    features = max(_DEPTH, triton.next_power_of_2(width))
    tokens = total - protected
    evens, odds = (tokens + 1) // 2, tokens // 2
    units = metric.new_empty(batch, tokens, features, dtype=torch.float32)
    best = metric.new_empty(batch, evens, dtype=torch.float32)
    partner = metric.new_empty(batch, evens, dtype=torch.int32)
    leader = metric.new_empty(batch, odds, dtype=torch.int32)
    assign = metric.new_empty(batch, total, dtype=torch.int64)
    _normalise[(triton.cdiv(tokens, _TILE), batch)](
        taking_part, units, tokens, width, *taking_part.stride(), _EPS, TILE=_TILE, FEATURES=features
    )
    _propose[(triton.cdiv(evens, _TILE), batch)](
        units, best, partner, leader, tokens, TILE=_TILE, DEPTH=_DEPTH, FEATURES=features
    )
    _join[(triton.cdiv(evens, _COUNT), batch)](best, partner, leader, evens, odds, merges, COUNT=_COUNT)
    _number[(triton.cdiv(total, _COUNT), batch)](partner, leader, assign, tokens, protected, COUNT=_COUNT)
    return assign
