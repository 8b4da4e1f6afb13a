"""Sequences, masks and duplicates against definitions written out in loops."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from mergevq.models.generators.layouts import first_occurrences, merge_ar, rand_ar, raster

rows = st.lists(st.lists(st.integers(0, 5), min_size=7, max_size=7), min_size=1, max_size=3)


@given(rows)
def test_first_occurrences_are_those_not_seen_before(codes: list[list[int]]) -> None:
    expected = [[code not in row[:place] for place, code in enumerate(row)] for row in codes]
    assert first_occurrences(torch.tensor(codes)).tolist() == expected


@given(rows, st.integers(1, 9))
def test_the_mask_of_merge_ar_is_its_definition(codes: list[list[int]], window: int) -> None:
    indices = torch.tensor(codes)
    batch, length = indices.shape
    layout = merge_ar(torch.zeros(batch, 2, 4), torch.zeros(batch, length, 4), indices, length, window)
    assert layout.mask is not None
    for row, query, key in torch.cartesian_prod(*map(torch.arange, layout.mask.shape)).tolist():
        first = key < 2 or codes[row][key - 2] not in codes[row][: key - 2]
        expected = key <= query and (first or query - key < window)
        assert bool(layout.mask[row, query, key]) == expected


def test_raster_places_tokens_behind_the_prefix() -> None:
    tokens = torch.arange(1.0, 5.0).view(1, 4, 1)
    layout = raster(torch.zeros(1, 1, 1), tokens, 4)
    assert layout.x.flatten().tolist() == [0, 1, 2, 3]
    assert layout.positions.tolist() == [[4, 0, 1, 2]]
    assert layout.x[:, layout.outputs].shape[1] == 4


def test_rand_ar_asks_before_each_token() -> None:
    tokens, questions = torch.tensor([[1.0, 2, 3]]), torch.tensor([[-1.0, -2, -3]])
    layout = rand_ar(
        torch.zeros(1, 1, 1), questions[..., None], tokens[..., None], torch.tensor([[5, 0, 3]]), 9
    )
    assert layout.x.flatten().tolist() == [0, -1, 1, -2, 2, -3]
    assert layout.positions.tolist() == [[9, 5, 5, 0, 0, 3]]
    assert layout.x[:, layout.outputs].flatten().tolist() == [-1, -2, -3]
