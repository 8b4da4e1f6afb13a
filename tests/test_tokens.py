from __future__ import annotations

import numpy as np
import pytest
import torch

from mergevq.errors import UsageError
from mergevq.tokens import Tokens


def tokens(batch=2, kept=3, length=6) -> Tokens:
    source = torch.tensor([[0, 0, 1, 2, 1, 2]]).expand(batch, -1)[:, :length]
    return Tokens(torch.arange(batch * kept).view(batch, kept), source, torch.full((batch, kept), 2), (2, 3))


def test_counts():
    assert len(tokens()) == 2 and tokens().keep == 3


def test_a_slice_takes_rows_of_everything():
    part = tokens()[1:]
    assert len(part) == 1 and part.indices.tolist() == [[3, 4, 5]]
    assert part.source.shape == (1, 6) and part.sizes.shape == (1, 3) and part.grid == (2, 3)


@pytest.mark.parametrize("kind", ["tensors", "arrays"])
def test_rows_are_taken_by_number_list_and_mask_and_one_after_another(kind):
    both = tokens() if kind == "tensors" else tokens().arrays()
    for row in (1, -1, np.int64(1), torch.tensor(1), [1], slice(1, None), [False, True]):
        part = both[np.array(row) if isinstance(row, list) else row]
        assert type(part) is type(both) and part.indices.tolist() == [[3, 4, 5]] and part.grid == (2, 3)
        assert part.source.shape == (1, 6) and part.sizes.shape == (1, 3)
    assert [each.indices.tolist() for each in both] == [[[0, 1, 2]], [[3, 4, 5]]]
    with pytest.raises(IndexError, match="no row 2; the tokens are those of 2 images"):
        both[2]
    with pytest.raises(UsageError, match=r"not by \(0, 1\)"):
        both[0, 1]


@pytest.mark.parametrize(
    ("shape", "grid", "said"),
    [((3,), (2, 3), r"indices are \(3,\); \(B, K\) is wanted"), ((2, 3), 6, r"grid is 6; a pair \(h, w\)")],
)
def test_what_are_no_tokens_is_one_sentence(shape, grid, said):
    with pytest.raises(UsageError, match=said):
        Tokens(torch.zeros(shape), torch.zeros(2, 6), torch.zeros(shape), grid)


def test_moves_to_another_device():
    moved = tokens().to("meta")
    assert {moved.indices.device.type, moved.source.device.type, moved.sizes.device.type} == {"meta"}


def test_sizes_that_disagree_are_refused():
    with pytest.raises(UsageError, match=r"sizes are \(2, 4\), indices \(2, 3\)"):
        Tokens(torch.zeros(2, 3), torch.zeros(2, 6), torch.zeros(2, 4), (2, 3))


def test_a_source_that_does_not_fit_the_grid_is_refused():
    with pytest.raises(UsageError, match=r"source is \(2, 5\); a 2 x 3 grid needs \(2, 6\)"):
        tokens(length=5)
