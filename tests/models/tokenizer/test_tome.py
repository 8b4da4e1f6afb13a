from __future__ import annotations

import pytest
import torch

from mergevq.models.tokenizer.tome import MergeState, ToMeBlock


@pytest.fixture
def block() -> ToMeBlock:
    return ToMeBlock(8, 2, 2.0, 0.5)


def start(batch=2, tokens=13) -> MergeState:
    return MergeState(torch.randn(batch, tokens, 8), None, None)


def test_without_merges_it_is_a_pre_norm_transformer_block(block):
    state = start()
    x = state.tokens
    y = x + block.attention(block.norm1(x), None)[0] * 0.5
    y = y + block.mlp(block.norm2(y)) * 0.5
    after = block(state, 0)
    torch.testing.assert_close(after.tokens, y)
    assert after.size is None and after.source is None


def test_merging_happens_between_attention_and_mlp(block):
    torch.nn.init.zeros_(block.scale2)
    state = start(batch=1)
    mixed = state.tokens + block.attention(block.norm1(state.tokens), None)[0] * 0.5
    after = block(state, 4)
    for slot in range(9):
        members = after.source[0] == slot
        torch.testing.assert_close(after.tokens[0, slot], mixed[0, members].mean(dim=0))
        assert after.size[0, slot] == members.sum()


def test_rounds_compose(block):
    state, kept = start(), 13
    for merges in (4, 0, 3, 1):
        state = block(state, merges)
        kept -= merges
        assert state.tokens.shape == (2, kept, 8)
    for row in range(2):
        assert torch.equal(torch.bincount(state.source[row], minlength=kept).float(), state.size[row])
    assert state.size.dtype == torch.float32 and state.source.dtype == torch.int64


def test_the_class_token_is_never_merged(block):
    state = MergeState(torch.ones(1, 9, 8), None, None)  # all tokens alike
    for _ in range(3):
        state = block(state, (state.tokens.shape[1] - 1) // 2)
    assert state.source[0, 0] == 0 and (state.source[0, 1:] > 0).all() and state.size[0, 0] == 1


def test_sizes_weigh_in_attention(block):
    x = torch.randn(1, 4, 8)
    one = block(MergeState(x, torch.ones(1, 4), None), 0).tokens
    other = block(MergeState(x, torch.tensor([[1.0, 9, 1, 1]]), None), 0).tokens
    assert (one - other).abs().max() > 1e-3
    torch.testing.assert_close(one, block(MergeState(x, None, None), 0).tokens)


def test_gradient_reaches_every_token_and_matching_takes_none(block):
    x = torch.randn(1, 13, 8, requires_grad=True)
    block(MergeState(x, None, None), 6).tokens.square().sum().backward()
    assert (x.grad.abs().sum(dim=-1) > 0).all()
    torch.nn.init.zeros_(block.scale1)  # attention no longer reaches the output; only matching saw the keys
    block.zero_grad()
    block(MergeState(x, None, None), 6).tokens.square().sum().backward()
    assert block.attention.qkv.weight.grad.abs().max() == 0


def test_places_are_averaged_as_tokens_are(block):
    state = start()._replace(place=torch.randn(2, 13, 4))
    after = block(block(state, 4), 3)
    for row in range(2):
        for slot in range(6):
            members = after.source[row] == slot
            torch.testing.assert_close(after.place[row, slot], state.place[row, members].mean(dim=0))


def test_a_strong_place_decides_who_merges(block):
    """Tokens in pairs at the same place, the partner always of the other parity."""
    place = torch.nn.functional.one_hot(torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])).float() * 1e3
    state = MergeState(torch.randn(1, 9, 8), None, None, torch.cat([torch.zeros(1, 4), place])[None])
    assert block(state, 4).source.tolist() == [[0, 1, 1, 2, 2, 3, 3, 4, 4]]
