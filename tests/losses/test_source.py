from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mergevq.errors import UsageError
from mergevq.losses.source import source_accuracy, source_loss


def example(seed: int, keep: int = 5, length: int = 9, spread: float = 2.0, causal: bool = True):
    """Logits (2, L, K) and a true source that a causal mask allows."""
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(2, length, keep, generator=generator)
    reach = torch.arange(1, length + 1).clamp(max=keep)
    source = (torch.rand(2, length, generator=generator) * reach).long()
    if causal:
        logits = logits.masked_fill(torch.arange(keep) > torch.arange(length)[:, None], float("-inf"))
    return logits, source


def brute_force_binary(logits: torch.Tensor, source: torch.Tensor) -> float:
    """Eq. 9 cell by cell in float64; 1 - p as the sum of the other probabilities."""
    total = 0.0
    for row, true in zip(logits.double().flatten(0, 1), source.flatten().tolist(), strict=True):
        p = torch.softmax(row, dim=0)
        for k in range(len(row)):
            rest = torch.cat([p[:k], p[k + 1 :]]).sum()
            total -= (p[k] if k == true else rest).log().item()
    return total / source.numel()


def test_softmax_is_the_mean_of_minus_log_probabilities():
    logits, source = example(0)
    p = torch.softmax(logits.double(), dim=-1).gather(-1, source[..., None])
    torch.testing.assert_close(source_loss(logits, source).double(), -p.log().mean())


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), keep=st.integers(1, 6), spread=st.sampled_from([0.0, 0.3, 3.0, 20.0]))
def test_binary_equals_brute_force(seed, keep, spread):
    for causal in (True, False):
        logits, source = example(seed, keep=keep, spread=spread, causal=causal)
        expected = brute_force_binary(logits, source)
        assert source_loss(logits, source, "binary").item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_binary_gradient_equals_float64_autograd():
    logits, source = example(1, causal=False)
    single, double = logits.clone().requires_grad_(), logits.double().requires_grad_()
    source_loss(single, source, "binary").backward()
    p = torch.softmax(double, dim=-1)
    hit = torch.nn.functional.one_hot(source, 5).bool()
    torch.where(hit, p, 1 - p).log().sum(-1).mean().neg().backward()
    torch.testing.assert_close(single.grad.double(), double.grad, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("kind", ["softmax", "binary"])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_loss_and_gradient_stay_finite(kind, scale):
    leaf = (scale * torch.randn(2, 9, 5, generator=torch.Generator().manual_seed(3))).requires_grad_()
    mask = torch.arange(5) > torch.arange(9)[:, None]
    _, source = example(3)
    loss = source_loss(leaf.masked_fill(mask, float("-inf")), source, kind)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(leaf.grad).all()
    assert (leaf.grad[:, mask] == 0).all()


def test_binary_counts_a_confident_mistake_twice():
    logits, source = torch.tensor([[[50.0, 0.0]]]), torch.tensor([[1]])
    # log p(true) and log(1 - p(wrong)) are both -50, and float32's 1 - p would be zero
    assert source_loss(logits, source, "binary").item() == pytest.approx(100.0, rel=1e-6)


def test_accuracy_counts_the_most_likely():
    logits = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [float("-inf"), 0.0], [3.0, 2.0]]])
    assert source_accuracy(logits, torch.tensor([[0, 1, 1, 1]])).item() == 0.75


def test_bad_input():
    with pytest.raises(UsageError, match=r"\(B, L, K\)"):
        source_loss(torch.zeros(2, 4, 3), torch.zeros(2, 5, dtype=torch.long))
    with pytest.raises(UsageError, match="did you mean 'binary'"):
        source_loss(torch.zeros(1, 2, 3), torch.zeros(1, 2, dtype=torch.long), "binry")  # type: ignore[arg-type]
