"""Layers for passes of a few rows: the same numbers, the same parameters, and the module as it was."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from mergevq.backends import for_few_rows, select
from mergevq.backends.cpu import few_rows


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.ModuleList([nn.Linear(24, 40, bias=False), nn.Linear(40, 24)])
        self.norm = nn.LayerNorm(24)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = self.inner
        return x + self.norm(second(first(x).relu()))


def module(dtype: torch.dtype = torch.float32) -> Residual:
    torch.manual_seed(0)
    return Residual().to(dtype).eval()


def layers(of: nn.Module) -> list[str]:
    return [type(layer).__name__ for layer in of.modules()]


@pytest.mark.parametrize("rows", [2, 3, 8, 33, 64])
@torch.inference_mode()
def test_the_result_is_that_of_the_module(rows: int) -> None:
    given = module()
    found = select("cpu").for_few_rows(given, rows)
    assert "_ReorderedLinear" in layers(found)
    for actual in (1, rows, 3 * rows):  # a pass may have other rows than was said
        x = torch.randn(actual, 1, 24)
        expected = copy.deepcopy(given).double()(x.double())
        torch.testing.assert_close(found(x), expected.float())


@torch.inference_mode()
def test_bfloat16_too() -> None:
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("oneDNN has no bfloat16 on this processor")
    given = module(torch.bfloat16)
    found = select("cpu").for_few_rows(given, 1)
    assert "_ReorderedLinear" in layers(found)
    x = torch.randn(1, 1, 24).bfloat16()
    torch.testing.assert_close(found(x), given(x))


def test_parameters_are_shared_and_the_module_stays_as_it_was() -> None:
    given = module()
    before = layers(given)
    found = select("cpu").for_few_rows(given, 8)
    assert layers(given) == before
    assert found.state_dict().keys() == given.state_dict().keys()
    pairs = zip(found.parameters(), given.parameters(), strict=True)
    assert all(mine is theirs for mine, theirs in pairs)


@pytest.mark.parametrize(("dtype", "rows"), [(torch.float32, 1), (torch.float32, 65), (torch.float16, 8)])
def test_where_nothing_is_gained_it_is_the_module_itself(dtype: torch.dtype, rows: int) -> None:
    given = module(dtype)
    assert select("cpu").for_few_rows(given, rows) is given


def test_autocast_decides_on_the_weights_itself() -> None:
    given = module()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert select("cpu").for_few_rows(given, 8) is given


def test_a_layer_that_stands_in_two_places_still_does() -> None:
    shared = nn.Linear(4, 4)
    given = nn.Sequential(shared, nn.Tanh(), shared)
    found = select("cpu").for_few_rows(given, 2)
    x = torch.randn(2, 4)
    torch.testing.assert_close(found(x), given(x))
    assert found[0].weight is found[2].weight


def test_without_onednn_it_is_the_module_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is it asked anything, for then it has no operators."""
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    monkeypatch.setattr(torch.ops, "mkldnn", None)
    assert not few_rows.pays(module(), 8)
    assert not few_rows.pays(module(torch.bfloat16), 8)


def test_a_module_on_a_device_that_nobody_described_stays_as_it_is() -> None:
    given = module().to("meta")
    assert for_few_rows(given, 8) is given
