from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mergevq.models.tokenizer.position import grid_code, nearness_code, sincos


def test_sincos_equals_its_formula():
    code = sincos(torch.tensor([0.0, 1.0, 7.5]), 6, longest=100.0)
    for row, position in enumerate([0.0, 1.0, 7.5]):
        angles = [position * 100 ** (-step / 3) for step in range(3)]
        wanted = [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
        assert code[row].tolist() == pytest.approx(wanted, abs=1e-5)


def test_grid_code_is_rows_then_columns_in_raster_order():
    code = grid_code(3, 5, 8, torch.device("cpu"))
    assert code.shape == (15, 8)
    for row in range(3):
        for column in range(5):
            wanted = torch.cat([sincos(torch.tensor(row), 4), sincos(torch.tensor(column), 4)])
            assert torch.equal(code[row * 5 + column], wanted)


def test_all_positions_of_a_large_grid_differ():
    code = grid_code(48, 32, 64, torch.device("cpu")).double()
    assert torch.cdist(code, code).fill_diagonal_(1).min() > 0.1


def test_a_larger_grid_continues_a_smaller_one():
    small, large = (grid_code(side, side, 8, torch.device("cpu")).view(side, side, 8) for side in (4, 6))
    assert torch.equal(large[:4, :4], small)


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(1, 9))
def test_nearness_falls_with_the_distance(height, width):
    code = nearness_code(height, width, torch.device("cpu"))
    torch.testing.assert_close(code.norm(dim=-1), torch.ones(height * width))
    products = (code @ code.T).view(height, width, height, width)
    along = products[0, 0]  # from the first corner
    assert (along.diff(dim=0) < 1e-6).all() and (along.diff(dim=1) < 1e-6).all()
    torch.testing.assert_close(products[0, 0].diagonal(), products[-1, -1].flip(0, 1).diagonal())
