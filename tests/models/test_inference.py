"""What the models do where no gradient is wanted, against what they do in training."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from mergevq.backends import reference_only, registry
from mergevq.config import DecoderConfig, EncoderConfig
from mergevq.models.layers import Conv3x3, ResidualBlock, Upsample, normalised_silu
from mergevq.models.tokenizer import Tokenizer
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
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.inference_mode():
        fast = wide.encoder(images, 256)
        tokens = wide.encode(images, 256)
        painted = wide.decode(tokens)
        with reference_only():
            slow = wide.encoder(images, 256)
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


def test_silu_in_place_gives_the_same_and_leaves_its_input():
    norm, x = nn.GroupNorm(2, 4), torch.randn(2, 4, 5, 5)
    before = x.clone()
    with torch.no_grad():
        fast = normalised_silu(norm, x)
    assert torch.equal(fast, normalised_silu(norm, x)) and torch.equal(x, before)
