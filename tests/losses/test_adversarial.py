from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from mergevq.losses.adversarial import (
    adaptive_weight,
    discriminator_hinge,
    generator_hinge,
    generator_non_saturating,
)


def test_discriminator_hinge_by_hand():
    real = torch.tensor([[2.0, 0.5], [-1.0, 1.0]])  # hinges 0, 0.5, 2, 0
    fake = torch.tensor([[-2.0, -0.5], [1.0, -1.0]])  # hinges 0, 0.5, 2, 0
    assert discriminator_hinge(real, fake).item() == pytest.approx(0.625)


def test_discriminator_hinge_has_no_gradient_beyond_the_margin():
    real = torch.tensor([3.0, 0.0], requires_grad=True)
    discriminator_hinge(real, torch.tensor([-3.0])).backward()
    assert real.grad is not None
    assert real.grad.tolist() == [0.0, -0.25]


def test_generator_hinge_is_minus_the_mean():
    assert generator_hinge(torch.tensor([[1.0, 2.0], [3.0, 6.0]])).item() == -3.0


def test_non_saturating_takes_the_mean_of_an_image_before_the_softplus():
    logits = torch.tensor([[[[1.0, 3.0]]], [[[-4.0, 0.0]]]])
    expected = (math.log1p(math.exp(-2.0)) + math.log1p(math.exp(2.0))) / 2
    assert generator_non_saturating(logits).item() == pytest.approx(expected, rel=1e-6)


def test_everything_is_float32():
    logits = torch.zeros(2, 1, 4, 4, dtype=torch.bfloat16)
    for loss in (
        discriminator_hinge(logits, logits),
        generator_hinge(logits),
        generator_non_saturating(logits),
    ):
        assert loss.dtype == torch.float32


def test_adaptive_weight_is_the_ratio_of_gradient_norms():
    torch.manual_seed(0)
    layer, critic = nn.Conv2d(4, 3, 3), nn.Conv2d(3, 1, 2)
    features, target = torch.randn(2, 4, 8, 8), torch.randn(2, 3, 6, 6)
    output = layer(features)
    reconstruction, adversarial = (output - target).square().mean(), -critic(output).mean()

    weight = adaptive_weight(reconstruction, adversarial, layer.weight)

    # d/dW of both losses from the definition of a convolution, in float64.
    patches = features.double().unfold(2, 3, 1).unfold(3, 3, 1)
    by_output = 2 * (output.double() - target.double()) / output.numel()
    wanted = torch.einsum("bohw,bihwkl->oikl", by_output, patches).norm()
    kernel = critic.weight.detach().double()
    by_output = torch.nn.functional.conv_transpose2d(-torch.ones(2, 1, 5, 5).double() / 50, kernel)
    given = torch.einsum("bohw,bihwkl->oikl", by_output, patches).norm()
    assert weight.item() == pytest.approx((wanted / (given + 1e-4)).item(), rel=1e-5)
    assert not weight.requires_grad
    assert layer.weight.grad is None

    (reconstruction + weight * adversarial).backward()
    assert layer.weight.grad is not None


def test_adaptive_weight_is_bounded_where_the_generator_has_no_gradient():
    weight = torch.ones(3, requires_grad=True)
    assert adaptive_weight((weight * 1e3).sum(), (weight * 0).sum(), weight).item() == 1e4
    assert adaptive_weight((weight * 1e3).sum(), (weight * 0).sum(), weight, maximum=7.0).item() == 7.0
