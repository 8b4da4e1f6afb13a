from __future__ import annotations

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from mergevq.errors import CheckpointError, UsageError
from mergevq.models.tokenizer.tome import MergeState, ToMeBlock
from mergevq.models.weight_selection import initialise_blocks, load_timm_blocks, select


def source_vit(**arguments) -> nn.Module:
    """A random ViT: width 64, 4 heads of 16, 4 blocks; every parameter is drawn, zeros and ones too."""
    torch.manual_seed(0)
    shape = {"embed_dim": 64, "depth": 4, "num_heads": 4, "init_values": 0.1, "norm_layer": nn.LayerNorm}
    network = VisionTransformer(img_size=32, patch_size=8, num_classes=0, **{**shape, **arguments})
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2)
    return network.eval()


def our_blocks(depth: int = 4, width: int = 64, heads: int = 4, mlp_ratio: float = 4.0) -> nn.ModuleList:
    return nn.ModuleList(ToMeBlock(width, heads, mlp_ratio, 1e-5) for _ in range(depth))


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_selected_slices_are_evenly_spaced(data):
    sizes = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=3))
    shape = [data.draw(st.integers(1, size)) for size in sizes]
    tensor = torch.arange(torch.tensor(sizes).prod().item()).view(sizes)
    selected = select(tensor, shape)
    assert list(selected.shape) == shape
    index = [data.draw(st.integers(0, n - 1)) for n in shape]
    origin = [i * size // n for i, size, n in zip(index, sizes, shape, strict=True)]
    assert selected[tuple(index)] == tensor[tuple(origin)]
    # evenly spaced: no two gaps differ by more than one slice, and nothing is taken twice
    for size, n in zip(sizes, shape, strict=True):
        gaps = select(torch.arange(size), [n]).diff().tolist()
        assert not gaps or (min(gaps) >= 1 and max(gaps) - min(gaps) <= 1)


@pytest.mark.parametrize("shape", [(5, 2), (2, 2, 2)])
def test_selection_cannot_invent_weights(shape):
    with pytest.raises(UsageError, match="at least as large"):
        select(torch.zeros(4, 4), shape)


def test_equal_shapes_compute_what_the_source_computes():
    network, blocks = source_vit(), our_blocks()
    initialise_blocks(blocks, network.state_dict(), source_head_width=16)
    tokens = torch.randn(2, 17, 64)
    for block, original in zip(blocks, network.blocks, strict=True):
        result = block(MergeState(tokens, None, None), 0).tokens
        torch.testing.assert_close(result, original(tokens), rtol=1e-5, atol=1e-5)


def test_more_heads_than_the_source_has_share_its_features_in_order():
    """Of one width, 4 heads to 8: as a d32 preset takes a ViT-S, and as the released code does."""
    state, blocks = source_vit().state_dict(), our_blocks(heads=8)
    initialise_blocks(blocks, state, source_head_width=16)
    for index, block in enumerate(blocks):
        assert torch.equal(block.attention.qkv.weight, state[f"blocks.{index}.attn.qkv.weight"])
        assert torch.equal(block.attention.out.weight, state[f"blocks.{index}.attn.proj.weight"])


def test_smaller_shapes_take_evenly_spaced_layers_heads_and_slices():
    """4 blocks of 4 heads of 16 to 2 blocks of 2 heads of 12, so width 24, and a hidden width of 48."""
    state, blocks = source_vit().state_dict(), our_blocks(depth=2, width=24, heads=2, mlp_ratio=2.0)
    initialise_blocks(blocks, state, source_head_width=16)
    width = [i * 64 // 24 for i in range(24)]
    hidden = [i * 256 // 48 for i in range(48)]
    inner = [(m * 4 // 2) * 16 + e * 16 // 12 for m in range(2) for e in range(12)]
    qkv = [part * 64 + row for part in range(3) for row in inner]
    for block, layer in zip(blocks, (0, 2), strict=True):
        old = {name.removeprefix(f"blocks.{layer}."): value for name, value in state.items()}
        expected = {
            "norm1.weight": old["norm1.weight"][width],
            "norm1.bias": old["norm1.bias"][width],
            "attention.qkv.weight": old["attn.qkv.weight"][qkv][:, width],
            "attention.qkv.bias": old["attn.qkv.bias"][qkv],
            "attention.out.weight": old["attn.proj.weight"][width][:, inner],
            "attention.out.bias": old["attn.proj.bias"][width],
            "scale1": old["ls1.gamma"][width],
            "norm2.weight": old["norm2.weight"][width],
            "norm2.bias": old["norm2.bias"][width],
            "mlp.up.weight": old["mlp.fc1.weight"][hidden][:, width],
            "mlp.up.bias": old["mlp.fc1.bias"][hidden],
            "mlp.down.weight": old["mlp.fc2.weight"][width][:, hidden],
            "mlp.down.bias": old["mlp.fc2.bias"][width],
            "scale2": old["ls2.gamma"][width],
        }
        assert set(expected) == set(block.state_dict())  # nothing keeps its random value
        for name, value in block.state_dict().items():
            assert torch.equal(value, expected[name]), name


def test_a_source_without_layer_scale_is_not_scaled_down():
    network, blocks = source_vit(init_values=None), our_blocks()
    initialise_blocks(blocks, network.state_dict(), source_head_width=16)
    tokens = torch.randn(1, 5, 64)
    torch.testing.assert_close(
        blocks[0](MergeState(tokens, None, None), 0).tokens, network.blocks[0](tokens), rtol=1e-5, atol=1e-5
    )


def test_parameters_stay_the_same_objects_and_trainable():
    blocks = our_blocks()
    before = list(blocks.parameters())
    initialise_blocks(blocks, source_vit().state_dict(), source_head_width=16)
    assert all(a is b and b.requires_grad for a, b in zip(before, blocks.parameters(), strict=True))


def test_impossible_sources_are_named():
    state = source_vit().state_dict()
    with pytest.raises(UsageError, match="5 blocks to fill and 4"):
        initialise_blocks(our_blocks(depth=5), state, source_head_width=16)
    with pytest.raises(UsageError, match="at least as large"):
        initialise_blocks(our_blocks(width=128), state, source_head_width=16)
    with pytest.raises(UsageError, match="right source_head_width"):
        initialise_blocks(our_blocks(), state, source_head_width=24)
    with pytest.raises(CheckpointError, match=r"no mlp\.fc1\.weight"):
        initialise_blocks(
            our_blocks(), {name: v for name, v in state.items() if "fc1" not in name}, source_head_width=16
        )


def test_blocks_come_from_a_file_or_by_name(tmp_path, monkeypatch):
    network = source_vit()
    torch.save(network.state_dict(), tmp_path / "vit.pth")
    names = {name for name in network.state_dict() if name.startswith("blocks.")}
    assert set(load_timm_blocks(str(tmp_path / "vit.pth"))) == names

    asked = []
    monkeypatch.setattr(
        timm, "create_model", lambda name, **keywords: asked.append((name, keywords)) or network
    )
    assert set(load_timm_blocks("vit_base_patch14_dinov2.lvd142m")) == names
    assert asked[0][0] == "vit_base_patch14_dinov2.lvd142m" and asked[0][1]["pretrained"] is True


def test_files_without_blocks_are_refused(tmp_path):
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "cnn.pth")
    with pytest.raises(CheckpointError, match="holds no ViT blocks"):
        load_timm_blocks(tmp_path / "cnn.pth")
    with pytest.raises(UsageError, match="there is no weights file"):
        load_timm_blocks("absent.safetensors")


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("attn.qkv.weight", torch.ones(7, 64)),
        ("attn.qkv.weight", torch.ones(192)),
        ("attn.qkv.weight", torch.ones(1).expand(10**12)),
        ("attn.qkv.bias", torch.ones(7)),
        ("attn.proj.weight", torch.ones(64, 7)),
    ],
)
def test_attention_of_another_shape_is_named(name, tensor):
    width = 64
    shapes = {
        "attn.qkv.weight": (3 * width, width),
        "attn.qkv.bias": (3 * width,),
        "attn.proj.weight": (width, width),
    }
    state = {f"blocks.0.{key}": torch.zeros(shape) for key, shape in shapes.items()}
    state |= {"blocks.0.attn.proj.bias": torch.zeros(width), f"blocks.0.{name}": tensor}
    block = ToMeBlock(32, 1, 4.0, 1e-5)
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        initialise_blocks([block], state)


@pytest.mark.parametrize("name", ["blocks.x.norm1.weight", "blocks.", "blocks.-1.norm1.weight"])
def test_blocks_without_a_number_are_named(name):
    with pytest.raises(CheckpointError, match="numbered"):
        initialise_blocks([], {name: torch.ones(1)})
