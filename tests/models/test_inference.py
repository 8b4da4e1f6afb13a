"""What the models do where no gradient is wanted, against what they do in training."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from mergevq.backends import reference_only, registry
from mergevq.config import DecoderConfig, EncoderConfig
from mergevq.models.layers import Conv3x3, ResidualBlock, Upsample
from mergevq.models.tokenizer.tokenizer import Tokenizer
from mergevq.presets import preset


@pytest.fixture(scope="module")
def wide() -> Tokenizer:
    """A tokenizer whose CNN stages have the channels that fast convolutions are for."""
    shape = {"patch": 2, "channels": 128, "multipliers": (1, 1), "blocks": 1}
    shape |= {"width": 64, "depth": 2, "heads": 2, "layer_scale": 0.5}
    torch.manual_seed(0)
    config = preset("tiny-32")
    return Tokenizer(
        dataclasses.replace(
            config, image_size=64, encoder=EncoderConfig(**shape), decoder=DecoderConfig(**shape)
        )
    )


def test_fast_convolutions_change_nothing_that_matters(wide, monkeypatch):
    monkeypatch.setattr(registry, "_STRICT", True)
    images = torch.rand(2, 3, 128, 128) * 2 - 1  # large enough for every fast implementation
    with torch.inference_mode():
        fast = wide.encoder(images, 1024)
        tokens = wide.encode(images, 1024)
        painted = wide.decode(tokens)
        with reference_only():
            slow = wide.encoder(images, 1024)
            repainted = wide.decode(tokens)
    torch.testing.assert_close(fast.tokens, slow.tokens, rtol=0, atol=1e-4)
    torch.testing.assert_close(painted, repainted, rtol=0, atol=1e-4)
    assert not torch.equal(fast.tokens, slow.tokens)  # or this test compares the reference with itself


def test_training_takes_the_references(wide, monkeypatch):
    monkeypatch.setattr(registry, "_STRICT", True)
    images = torch.rand(1, 3, 64, 64) * 2 - 1
    trained = wide(images, 200).images
    with reference_only():
        assert torch.equal(trained, wide(images, 200).images)


def test_convolutions_keep_their_names_and_their_initial_weights():
    torch.manual_seed(0)
    ours = Conv3x3(5, 7)
    torch.manual_seed(0)
    theirs = nn.Conv2d(5, 7, 3, padding=1)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    assert all(torch.equal(*pair) for pair in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert list(Conv3x3(5, 7, bias=False).state_dict()) == ["weight"]
    assert list(Upsample(4).state_dict()) == ["conv.weight", "conv.bias"]
    assert "conv1.weight" in ResidualBlock(4, 4).state_dict()


@pytest.mark.parametrize(("channels", "out"), [(64, 64), (64, 128), (8, 8), (8, 12)])
def test_a_residual_block_leaves_its_input_and_gives_what_training_gives(channels, out):
    torch.manual_seed(0)
    block, x = ResidualBlock(channels, out), torch.randn(1, channels, 64, 64)
    before, trained = x.clone(), block(x)
    with torch.no_grad():
        fast = block(x)
        assert torch.equal(x, before)
        with reference_only():
            assert torch.equal(block(x), trained) and torch.equal(x, before)
    torch.testing.assert_close(fast, trained, rtol=0, atol=2e-5)


def test_what_the_layers_are_made_of_is_what_runs():
    block, x = ResidualBlock(8, 8).double(), torch.randn(1, 8, 5, 6, dtype=torch.float64)
    hidden = block.conv1(nn.functional.silu(block.norm1(x)))
    wanted = x + block.conv2(nn.functional.silu(block.norm2(hidden)))
    torch.testing.assert_close(block(x), wanted)
