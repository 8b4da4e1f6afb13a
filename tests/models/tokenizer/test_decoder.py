from __future__ import annotations

import pytest
import torch

from mergevq.config import DecoderConfig
from mergevq.models.tokenizer.decoder import Decoder

SMALL = DecoderConfig(
    patch=2, channels=16, multipliers=(1, 2), blocks=1, width=32, depth=2, heads=2, layer_scale=0.5
)
FLAT = DecoderConfig(patch=4, multipliers=(), width=32, depth=1, heads=2)
DEEP = DecoderConfig(patch=1, channels=8, multipliers=(1, 2, 4), blocks=2, width=16, depth=1, heads=1)


@pytest.mark.parametrize("config", [SMALL, FLAT, DEEP], ids=["small", "flat", "deep"])
@pytest.mark.parametrize("grid", [(1, 1), (4, 4), (3, 5)])
def test_paints_the_whole_grid(config, grid):
    codes = torch.randn(2, grid[0] * grid[1], 6).sign()
    images = Decoder(config, 6)(codes, grid)
    assert images.shape == (2, 3, config.stride * grid[0], config.stride * grid[1])


def test_every_stage_but_the_finest_has_one_block_more():
    decoder = Decoder(DEEP, 6)
    kinds = [type(layer).__name__ for layer in decoder.stages]
    residual, up = "ResidualBlock", "Upsample"
    assert kinds == [residual] * 3 + [up] + [residual] * 3 + [up] + [residual] * 2


def test_every_parameter_is_used():
    decoder = Decoder(SMALL, 6)
    decoder(torch.randn(1, 16, 6).sign(), (4, 4)).square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in decoder.parameters())


def test_sees_the_whole_grid_and_where_a_code_stands():
    decoder = Decoder(SMALL, 6).eval()
    codes = torch.randn(1, 16, 6).sign().requires_grad_()
    decoder(codes, (4, 4))[0, :, 0, 0].sum().backward()
    assert (codes.grad.abs().sum(dim=-1) > 0).all()  # attention reaches the far corner
    turned = decoder(codes.flip(1), (4, 4)).flip(2, 3)
    assert (turned - decoder(codes, (4, 4))).abs().max() > 1e-4


def test_exports():
    decoder = Decoder(SMALL, 6).eval()
    codes = torch.randn(2, 12, 6).sign()
    program = torch.export.export(decoder, (codes, (3, 4)))
    torch.testing.assert_close(program.module()(codes, (3, 4)), decoder(codes, (3, 4)), rtol=1e-4, atol=1e-5)
