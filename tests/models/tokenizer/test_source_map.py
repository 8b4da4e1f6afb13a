"""The most likely source map against every map there is."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mergevq.models.tokenizer.source_map import most_likely_source, source_with_starts


def valid_maps(length, keep):
    """Every sequence over `keep` tokens in which they first appear in order, and all appear."""
    for tokens in itertools.product(range(keep), repeat=length):
        firsts = list(dict.fromkeys(tokens))
        if firsts == list(range(keep)):
            yield tokens


@settings(max_examples=60)
@given(st.integers(1, 7), st.data())
def test_equals_exhaustive_search(length, data):
    keep = data.draw(st.integers(1, min(length, 4)))
    seed = data.draw(st.integers(0, 2**32 - 1))
    logits = (
        torch.randn(2, length, keep, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3
    )
    positions = torch.arange(length).unsqueeze(-1)
    logits = logits.masked_fill(torch.arange(keep) > positions, float("-inf"))
    scores = logits.log_softmax(dim=-1)
    found = most_likely_source(logits)
    for row, source in zip(scores, found, strict=True):
        best = max(valid_maps(length, keep), key=lambda m: sum(float(row[j, k]) for j, k in enumerate(m)))
        assert source.tolist() == list(best)


@given(st.integers(1, 40), st.data())
def test_every_token_appears_in_order(length, data):
    keep = data.draw(st.integers(1, length))
    seed = data.draw(st.integers(0, 2**32 - 1))
    logits = torch.randn(3, length, keep, generator=torch.Generator().manual_seed(seed))
    for source in most_likely_source(logits).tolist():
        assert list(dict.fromkeys(source)) == list(range(keep))


def test_all_kept_is_the_identity():
    logits = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(most_likely_source(logits), torch.arange(16).expand(2, -1))


@pytest.mark.parametrize("keep", [3, 7, 12])
def test_certain_logits_give_the_map_they_mean(keep):
    generator = torch.Generator().manual_seed(keep)
    source = torch.cat([torch.arange(keep), torch.randint(0, keep, (20,), generator=generator)]).unsqueeze(0)
    logits = torch.nn.functional.one_hot(source, keep) * 50.0
    assert torch.equal(most_likely_source(logits), source)


@given(st.integers(1, 4), st.integers(4, 7), st.integers(0, 10**6))
def test_known_starts_leave_the_likeliest_map_that_has_them(keep, length, seed):
    """Against every map of that length."""
    generator = torch.Generator().manual_seed(seed)
    later = torch.randperm(length - 1, generator=generator)[: keep - 1].sort().values + 1
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), later])
    logits = torch.randn(1, length, keep, generator=generator)
    scores = logits.log_softmax(dim=-1)[0]

    maps = [
        m for m in valid_maps(length, keep) if [m.index(token) for token in range(keep)] == starts.tolist()
    ]
    best = max(maps, key=lambda m: sum(float(scores[i, token]) for i, token in enumerate(m)))
    assert source_with_starts(logits, starts[None])[0].tolist() == list(best)
