from __future__ import annotations

import pytest
import torch
from torch import nn

from mergevq.errors import UsageError
from mergevq.models.discriminator import PatchDiscriminator


def test_default_is_the_published_network():
    network = PatchDiscriminator()
    assert sum(parameter.numel() for parameter in network.parameters()) == 2_765_633
    biases = [module.bias is not None for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert biases == [True, False, False, False, True]
    assert network(torch.zeros(2, 3, 256, 256)).shape == (2, 1, 30, 30)


def test_a_logit_sees_seventy_pixels():
    network = PatchDiscriminator(channels=4).eval()
    images = torch.randn(1, 3, 256, 256, requires_grad=True)
    network(images)[0, 0, 15, 15].backward()
    seen = images.grad.abs().sum(dim=(0, 1)) > 0
    assert (seen.any(dim=0).sum().item(), seen.any(dim=1).sum().item()) == (70, 70)


@pytest.mark.parametrize(("size", "layers", "out"), [(32, 3, 2), (24, 3, 1), (32, 2, 6), (6, 1, 1)])
def test_small_images(size, layers, out):
    network = PatchDiscriminator(channels=8, layers=layers)
    assert network(torch.zeros(2, 3, size, size)).shape == (2, 1, out, out)


def test_too_small_an_image_says_how_many_pixels():
    with pytest.raises(UsageError, match=r"23 x 64 px .* needs 24 px a side; use fewer layers"):
        PatchDiscriminator(channels=8)(torch.zeros(1, 3, 23, 64))


@pytest.mark.parametrize("arguments", [{"layers": 0}, {"channels": 0}])
def test_refuses_an_empty_network(arguments):
    with pytest.raises(UsageError, match="must be >= 1"):
        PatchDiscriminator(**arguments)


def test_initial_values():
    torch.manual_seed(0)
    for module in PatchDiscriminator().modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 10_000:
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.05)
            assert abs(module.weight.mean().item()) < 1e-3
        if isinstance(module, nn.BatchNorm2d):
            assert module.weight.mean().item() == pytest.approx(1.0, abs=0.01)
        if isinstance(module, (nn.Conv2d, nn.BatchNorm2d)) and module.bias is not None:
            assert not module.bias.any()
