from __future__ import annotations

import pytest
import torch

from mergevq.config import EncoderConfig, MergeConfig
from mergevq.errors import UsageError
from mergevq.models.tokenizer.encoder import Encoder

HYBRID = EncoderConfig(
    patch=2, channels=16, multipliers=(1, 2), blocks=1, width=32, depth=3, heads=2, layer_scale=0.5
)
VIT = EncoderConfig(patch=4, multipliers=(), width=32, depth=3, heads=2, layer_scale=0.5)
FINE = EncoderConfig(patch=1, channels=8, multipliers=(1, 2, 2), blocks=1, width=16, depth=2, heads=1)
STRIDE = 4


@pytest.mark.parametrize("config", [HYBRID, VIT, FINE], ids=["hybrid", "vit", "fine"])
@pytest.mark.parametrize(("height", "width", "keep"), [(32, 32, 30), (32, 48, 96), (16, 8, 2), (8, 8, 4)])
def test_tokens_cover_the_grid_in_raster_order(config, height, width, keep):
    grid = (height // STRIDE, width // STRIDE)
    length = grid[0] * grid[1]
    keep = max(keep, -(-length // 2**config.depth))
    encoding = Encoder(config, MergeConfig())(torch.randn(2, 3, height, width), keep)
    assert encoding.tokens.shape == (2, keep, config.width) and encoding.cls.shape == (2, config.width)
    assert encoding.grid == grid and encoding.source.shape == (2, length)
    assert encoding.source.dtype == encoding.sizes.dtype == torch.int64
    for row in range(2):
        assert torch.equal(torch.bincount(encoding.source[row], minlength=keep), encoding.sizes[row])
        seen = torch.cat([torch.tensor([-1]), encoding.source[row].cummax(dim=0).values])
        assert (seen.diff() <= 1).all()


@pytest.mark.parametrize("config", [HYBRID, VIT], ids=["hybrid", "vit"])
def test_position_is_seen(config):
    """Without it, a Vision Transformer gives the same class token whatever the order of the patches."""
    encoder = Encoder(config, MergeConfig()).eval()
    images = torch.randn(1, 3, 16, 16)
    patches = images.unfold(2, 4, 4).unfold(3, 4, 4)  # (1, 3, 4, 4, 4, 4)
    shuffled = patches.flatten(2, 3)[:, :, torch.randperm(16)].unflatten(2, (4, 4))
    shuffled = shuffled.permute(0, 1, 2, 4, 3, 5).reshape(1, 3, 16, 16)
    assert (encoder(images, 16).cls - encoder(shuffled, 16).cls).abs().max() > 1e-4
    torch.nn.init.zeros_(encoder.position_gain)
    if config is VIT:  # the only thing that told positions apart
        torch.testing.assert_close(encoder(images, 16).cls, encoder(shuffled, 16).cls)


def test_gradient_reaches_the_features_of_every_position():
    encoder = Encoder(HYBRID, MergeConfig())
    seen = []

    def remember(module, inputs, output):
        output.retain_grad()
        seen.append(output)

    encoder.stages.register_forward_hook(remember)
    encoder(torch.randn(2, 3, 32, 32), 16).tokens.square().sum().backward()
    assert (seen[0].grad.abs().sum(dim=1) > 0).all()


def test_every_parameter_is_used():
    encoder = Encoder(HYBRID, MergeConfig())
    encoding = encoder(torch.randn(2, 3, 32, 32), 16)
    (encoding.tokens.square().sum() + encoding.cls.square().sum()).backward()
    assert [name for name, parameter in encoder.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("keep", [7, 0, 65])
def test_a_count_out_of_reach_is_refused(keep):
    with pytest.raises(UsageError, match=f"cannot keep {keep} of 64"):
        Encoder(HYBRID, MergeConfig())(torch.randn(1, 3, 32, 32), keep)


def test_values_that_are_not_finite_stay_within_their_picture():
    images = torch.randn(2, 3, 32, 32)
    encoder = Encoder(HYBRID, MergeConfig())
    alone = encoder(images[1:], 20)
    images[0, 1, 5, 5] = torch.nan
    both = encoder(images, 20)
    assert not both.tokens[0].isfinite().all() and (both.source[0] < 20).all()
    assert torch.equal(both.source[1:], alone.source)
    torch.testing.assert_close(both.tokens[1:], alone.tokens)


def test_the_schedule_matters():
    images = torch.randn(1, 3, 32, 32)
    encoder = Encoder(HYBRID, MergeConfig())
    square = encoder(images, 16).tokens
    encoder.schedule = "constant"
    assert not torch.equal(encoder(images, 16).tokens, square)


@pytest.mark.parametrize("keep", [64, 40])
def test_exports(keep):
    encoder = Encoder(HYBRID, MergeConfig()).eval()
    images = torch.randn(2, 3, 32, 32)
    program = torch.export.export(encoder, (images, keep))
    wanted = encoder(images, keep)
    got = program.module()(images, keep)
    assert torch.equal(got[1], wanted.source) and torch.equal(got[2], wanted.sizes)
    torch.testing.assert_close(got[0], wanted.tokens, rtol=1e-4, atol=1e-5)
    targets = {str(node.target) for node in program.graph.nodes}
    assert not any(
        word in target for target in targets for word in ("scatter_reduce", "nonzero", "sort", "float64")
    )


def test_locality_makes_tokens_cover_what_hangs_together():
    """At a great weight each cluster of the first mergings is a position and its neighbours."""
    torch.manual_seed(0)
    local = Encoder(HYBRID, MergeConfig(locality=1e4)).eval()
    plain = Encoder(HYBRID, MergeConfig()).eval()
    plain.load_state_dict(local.state_dict())
    images = torch.randn(4, 3, 32, 32)

    def spread(encoder):
        encoding = encoder(images, encoder_length(encoder, images) * 3 // 4)
        height, width = encoding.grid
        at = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"), -1)
        at = at.flatten(0, 1).float()
        alike = encoding.source.unsqueeze(1) == encoding.source.unsqueeze(2)
        return (torch.cdist(at, at) * alike).amax()

    assert spread(local) <= 2 < spread(plain)


def encoder_length(encoder, images):
    return encoder.stages(encoder.stem(images)).shape[2:].numel()
