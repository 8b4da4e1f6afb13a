"""Codebook use against counting by hand, and merging of parts."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import astuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mergevq.errors import UsageError
from mergevq.metrics.codebook import CodebookUsage

BATCHES = st.lists(st.lists(st.integers(0, 15), min_size=3, max_size=3), min_size=1, max_size=5)


def counted(batch: list[list[int]], bits: int = 4) -> CodebookUsage:
    usage = CodebookUsage(bits)
    usage.update(torch.tensor(batch))
    return usage


@settings(max_examples=40, deadline=None)
@given(BATCHES)
def test_summary_is_that_of_a_count_by_hand(batch: list[list[int]]) -> None:
    counts = Counter(code for row in batch for code in row)
    tokens = 3 * len(batch)
    entropy = -sum(n / tokens * math.log2(n / tokens) for n in counts.values())
    found = counted(batch).compute()
    assert (found.images, found.tokens, found.distinct) == (len(batch), tokens, len(counts))
    assert found.fraction == len(counts) / 16
    assert found.entropy == pytest.approx(entropy, abs=1e-12)
    assert found.perplexity == pytest.approx(2**entropy)


@settings(max_examples=40, deadline=None)
@given(BATCHES, BATCHES, BATCHES)
def test_parts_merge_in_any_grouping(a: list[list[int]], b: list[list[int]], c: list[list[int]]) -> None:
    left = counted(a)
    left.merge(counted(b))
    left.merge(counted(c))
    tail = counted(b)
    tail.merge(counted(c))
    right = counted(a)
    right.merge(tail)
    whole = counted([*a, *b, *c])
    assert astuple(left.compute()) == astuple(right.compute()) == astuple(whole.compute())


def test_merging_leaves_the_other_part_alone() -> None:
    other = counted([[1, 2, 3]])
    counted([[1, 1, 1]]).merge(other)
    assert other.compute().tokens == 3


def test_uniform_use_has_d_bits() -> None:
    found = counted(torch.arange(16).view(4, 4).tolist()).compute()
    assert (found.fraction, found.entropy, found.perplexity) == (1.0, 4.0, 16.0)


def test_a_large_vocabulary_needs_no_large_table() -> None:
    usage = CodebookUsage(31)
    usage.update(torch.tensor([[0, 2**31 - 1, 5], [5, 5, 5]]))
    found = usage.compute()
    assert found.distinct == 3
    assert found.fraction == 3 / 2**31
    assert usage._counts.numel() == 3


@pytest.mark.parametrize("index", [-1, 16])
def test_indices_outside_the_vocabulary_are_refused(index: int) -> None:
    with pytest.raises(UsageError, match="4 bits hold 0 to 15"):
        counted([[0, index, 3]])


def test_empty_and_unlike_counts_are_refused() -> None:
    with pytest.raises(UsageError, match="before any tokens"):
        CodebookUsage(4).compute()
    with pytest.raises(UsageError, match="5 bits cannot be added to usage of 4 bits"):
        CodebookUsage(4).merge(CodebookUsage(5))
