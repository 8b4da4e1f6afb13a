"""Held-out pictures: whole, spread over the data, and not those that are trained on."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergevq.data.tokens.shards import TokenShards
from mergevq.data.tokens.splits import TokenRows, hold_out


class Records:
    """As many records as are asked for, which hold their numbers."""

    def __init__(self, pictures, views):
        self.count = pictures * views
        self.meta = SimpleNamespace(views=views)

    def __len__(self):
        return self.count

    def batch(self, rows):
        return rows.tolist()


@given(st.integers(2, 300), st.integers(1, 5), st.floats(0.001, 0.999))
def test_parts_share_no_picture(pictures, views, share):
    training, held_out = hold_out(Records(pictures, views), share)
    rows = np.concatenate([training.rows, held_out.rows])
    assert sorted(rows.tolist()) == list(range(pictures * views))
    assert not {*(training.rows // views)} & {*(held_out.rows // views)}
    wanted = min(max(round(share * pictures), 1), pictures - 1)
    assert len(held_out) == wanted * views


def test_held_out_pictures_are_spread():
    _, held_out = hold_out(Records(1000, 2), 0.1)
    assert np.bincount(held_out.rows // 200, minlength=10).tolist() == [20] * 10


def test_single_picture_is_in_both():
    training, held_out = hold_out(Records(1, 3), 0.5)
    assert len(training) == len(held_out) == 3


def test_rows_are_numbered_anew():
    rows = TokenRows(Records(10, 1), np.array([2, 4, 6, 8, 9]))
    assert rows.batch(np.array([0, 4, 1])) == [2, 9, 4]
    assert list(rows.spaced(3, 2)) == [[2, 4], [8]]
    assert list(rows.spaced(100, 4)) == [[2, 4, 6, 8], [9]]


def test_batches_are_those_of_the_shards(token_home):
    shards = TokenShards(token_home / "tokens")
    training, held_out = hold_out(shards, 0.25)
    assert len(shards) == 36 and len(held_out) == 9
    expected = shards.batch(held_out.rows[[3, 1]])
    for one, other in zip(held_out.batch(np.array([3, 1])), expected, strict=True):
        assert one.equal(other)
    assert training.meta.classes == 2


@pytest.mark.parametrize("most", [1, 5])
def test_evaluation_is_on_both_ends_of_sorted_classes(token_home, most):
    _, held_out = hold_out(TokenShards(token_home / "tokens"), 0.5)
    labels = [label for batch in held_out.spaced(most, 2) for label in batch.labels.tolist()]
    assert len(labels) == most
    assert most == 1 or {*labels} == {0, 1}
