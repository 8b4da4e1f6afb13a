from __future__ import annotations

import pytest
import torch

from mergevq.config import RecoveryConfig
from mergevq.models.tokenizer.recovery import CrossAttention, SourceRecovery

CONFIG = RecoveryConfig(width=32, depth=2, heads=2)


@pytest.fixture
def recovery() -> SourceRecovery:
    return SourceRecovery(CONFIG, 6, 4)


@pytest.mark.parametrize(
    ("grid", "keep"), [((4, 4), 16), ((4, 4), 5), ((4, 4), 1), ((3, 7), 10), ((8, 8), 40)]
)
def test_no_token_is_offered_before_its_rank(recovery, grid, keep):
    logits = recovery(torch.randn(2, keep, 6).sign(), grid)
    length = grid[0] * grid[1]
    assert logits.shape == (2, length, keep) and logits.dtype == torch.float32
    for position in range(length):
        for token in range(keep):
            assert logits[0, position, token].isfinite() == (token <= position)


def test_gradient_reaches_the_codes_and_every_parameter(recovery):
    codes = torch.randn(2, 5, 6).sign().requires_grad_()
    logits = recovery(codes, (4, 4))
    torch.nn.functional.cross_entropy(logits.transpose(1, 2), torch.zeros(2, 16, dtype=torch.long)).backward()
    assert (codes.grad.abs().sum(dim=-1) > 0).all()
    assert all(parameter.grad.abs().max() > 0 for parameter in recovery.parameters())
    assert codes.grad.isfinite().all()


def test_queries_know_the_kept_count(recovery):
    few, many = recovery._queries(4, (4, 4)), recovery._queries(12, (4, 4))
    assert (few - many).abs().max() > 1e-3


def test_tokens_know_their_rank(recovery):
    """Equal codes at different ranks are different answers."""
    logits = recovery(torch.ones(1, 4, 6), (4, 4))
    assert logits[0, -1].unique().numel() == 4


def test_order_of_the_codes_matters(recovery):
    codes = torch.randn(1, 6, 6).sign()
    codes[0, 0], codes[0, 1] = 1, -1
    swapped = codes[:, [1, 0, 2, 3, 4, 5]]
    assert (recovery(codes, (4, 4)) - recovery(swapped, (4, 4)))[0, 6:].abs().max() > 1e-4


def test_rows_of_a_batch_do_not_see_each_other(recovery):
    codes = torch.randn(3, 5, 6).sign()
    together = recovery(codes, (4, 4))
    torch.testing.assert_close(recovery(codes[1:2], (4, 4)), together[1:2])


def test_cross_attention_equals_torchs():
    ours, theirs = (
        CrossAttention(12, 3).double(),
        torch.nn.MultiheadAttention(12, 3, batch_first=True).double(),
    )
    theirs.load_state_dict(
        {
            "in_proj_weight": torch.cat([ours.query.weight, ours.key_value.weight]),
            "in_proj_bias": torch.cat([ours.query.bias, ours.key_value.bias]),
            "out_proj.weight": ours.out.weight,
            "out_proj.bias": ours.out.bias,
        }
    )
    x, memory = (torch.randn(2, length, 12, dtype=torch.float64) for length in (5, 3))
    torch.testing.assert_close(ours(x, memory), theirs(x, memory, memory, need_weights=False)[0])


def test_logits_are_float32_under_autocast(recovery):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert recovery(torch.ones(1, 4, 6), (4, 4)).dtype == torch.float32


def test_exports(recovery):
    codes = torch.randn(2, 5, 6).sign()
    for grid in [(4, 4), (6, 4)]:
        program = torch.export.export(recovery, (codes, grid))
        torch.testing.assert_close(program.module()(codes, grid), recovery(codes, grid), rtol=1e-4, atol=1e-5)
