from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mergevq.models.layers import MixMlp, Mlp, ResidualBlock, SelfAttention, Upsample, group_norm, on_grid


def test_self_attention_equals_torchs():
    ours, theirs = SelfAttention(12, 3).double(), nn.MultiheadAttention(12, 3, batch_first=True).double()
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.qkv.weight,
            "in_proj_bias": ours.qkv.bias,
            "out_proj.weight": ours.out.weight,
            "out_proj.bias": ours.out.bias,
        }
    )
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    attended, keys = ours(x, None)
    torch.testing.assert_close(attended, theirs(x, x, x, need_weights=False)[0])
    key = F.linear(x, ours.qkv.weight[12:24], ours.qkv.bias[12:24])
    torch.testing.assert_close(keys, key.view(2, 5, 3, 4).mean(dim=2))


def test_a_token_of_size_two_attends_as_two_tokens():
    attention = SelfAttention(8, 2).double()
    x = torch.randn(1, 3, 8, dtype=torch.float64)
    sized, _ = attention(x, torch.tensor([[1.0, 2.0, 1.0]], dtype=torch.float64))
    copied, _ = attention(x[:, [0, 1, 1, 2]], None)
    torch.testing.assert_close(sized, copied[:, [0, 1, 3]])


def test_mlp_works_on_each_token_alone():
    mlp, x = Mlp(4, 8), torch.randn(2, 3, 4)
    torch.testing.assert_close(mlp(x)[1, 2], mlp(x[1, 2]))
    torch.testing.assert_close(mlp(x), mlp.down(F.gelu(mlp.up(x))))


def test_mix_mlp_sees_eight_neighbours_and_no_more():
    mlp = MixMlp(4, 8)
    x = torch.randn(1, 35, 4, requires_grad=True)
    mlp(x, (5, 7)).view(1, 5, 7, 4)[0, 2, 3].sum().backward()
    seen = x.grad[0].abs().sum(dim=-1).view(5, 7) > 0
    wanted = torch.zeros(5, 7, dtype=torch.bool)
    wanted[1:4, 2:5] = True
    assert torch.equal(seen, wanted)


def test_on_grid_is_a_convolution_of_the_raster():
    convolution, x = nn.Conv2d(3, 6, 3, padding=1), torch.randn(2, 20, 3)
    image = x.transpose(1, 2).reshape(2, 3, 4, 5)
    wanted = convolution(image).flatten(2).transpose(1, 2)
    torch.testing.assert_close(on_grid(convolution, x, (4, 5)), wanted)


@pytest.mark.parametrize(("channels", "groups"), [(64, 32), (96, 32), (48, 16), (20, 4), (7, 1)])
def test_group_norm_divides_the_channels(channels, groups):
    assert group_norm(channels).num_groups == groups


def test_residual_block_adds_to_its_skip():
    for channels, out in [(8, 8), (8, 12)]:
        block, x = ResidualBlock(channels, out), torch.randn(1, channels, 4, 4)
        nn.init.zeros_(block.conv2.weight)
        assert torch.equal(block(x), block.skip(x))
    assert torch.equal(ResidualBlock(8, 8).skip(x), x)


def test_upsample_doubles_both_sides():
    assert Upsample(6)(torch.randn(1, 6, 3, 5)).shape == (1, 6, 6, 10)
