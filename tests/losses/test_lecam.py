from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mergevq.errors import UsageError
from mergevq.losses.lecam import LeCam


def test_averages_follow_the_plain_recursion():
    generator = torch.Generator().manual_seed(0)
    lecam, real, fake = LeCam(decay=0.9), 0.0, 0.0
    for _ in range(50):
        real_logits = torch.randn(3, 1, 4, 4, generator=generator) + 1
        fake_logits = torch.randn(3, 1, 4, 4, generator=generator) - 1
        lecam.update(real_logits, fake_logits)
        real = 0.9 * real + 0.1 * real_logits.double().mean().item()
        fake = 0.9 * fake + 0.1 * fake_logits.double().mean().item()
    assert lecam.ema_real.item() == pytest.approx(real, rel=1e-5)
    assert lecam.ema_fake.item() == pytest.approx(fake, rel=1e-5)


def test_loss_is_per_logit():
    lecam = LeCam()
    lecam.ema_real.fill_(1.0)
    lecam.ema_fake.fill_(-1.0)
    real, fake = torch.tensor([[0.0, -3.0]]), torch.tensor([[2.0, 0.0]])
    # (relu(0+1)^2 + relu(-3+1)^2) / 2 + (relu(1-2)^2 + relu(1-0)^2) / 2; on the mean logit it would be 0
    assert lecam(real, fake).item() == pytest.approx(1.0)


@settings(max_examples=25, deadline=None)
@given(shift=st.floats(-3, 3), ema=st.floats(-2, 2))
def test_matches_a_loop(shift, ema):
    lecam = LeCam()
    lecam.ema_real.fill_(ema)
    lecam.ema_fake.fill_(-ema / 2)
    real = torch.linspace(-2, 2, 9) + shift
    fake = torch.linspace(-1, 3, 9) - shift
    expected = sum(max(value.item() + ema / 2, 0) ** 2 for value in real) / 9
    expected += sum(max(ema - value.item(), 0) ** 2 for value in fake) / 9
    assert lecam(real, fake).item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_an_update_between_forward_and_backward_does_no_harm():
    lecam, logits = LeCam(), torch.randn(4, requires_grad=True)
    loss = lecam(logits, logits)
    lecam.update(logits, logits)
    loss.backward()
    assert torch.isfinite(logits.grad).all()
    assert not lecam.ema_real.requires_grad


def test_averages_are_in_the_state_dict_as_float32_scalars():
    lecam = LeCam()
    lecam.update(torch.ones(2, dtype=torch.bfloat16), -torch.ones(2, dtype=torch.bfloat16))
    copy = LeCam()
    copy.load_state_dict(lecam.state_dict())
    assert copy.ema_real.item() == pytest.approx(1e-3)
    assert copy.ema_fake.item() == pytest.approx(-1e-3)
    assert copy.ema_real.dtype == torch.float32 and copy.ema_real.shape == ()
    assert not list(lecam.parameters())


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_refuses_a_decay_that_never_moves(decay):
    with pytest.raises(UsageError, match=str(decay)):
        LeCam(decay)
